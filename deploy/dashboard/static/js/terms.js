// What the words mean, once: as titles where they stand, and as a list in the help.

export const TERMS = {
  skill: ["Skill", "1 − the forecasts' mean absolute error / that of the naive forecast, which repeats what was one season before. Above 0 the model is better than repeating, 0.30 means 30 % less error, below 0 it is worse."],
  mae: ["MAE", "Mean absolute error: how far forecasts were off on average, in the unit of the values."],
  naive: ["Naive forecast", "Repeats what was one season (a day, a week) before where the model's look-back reaches that far, else the last value: what any model has to beat."],
  coverage: ["Coverage", "The share of actual values that lay inside their interval. At intervals of 90 % it should be near 90 %: far below they are too narrow, far above too wide."],
  width: ["Width", "How wide the intervals are on average. In the unit of the values."],
  relative: ["Width / scale", "How wide the intervals are on average, relative to the series' scale (its naive forecast's error one step ahead), so that series compare."],
  winkler: ["Winkler score", "The interval's width, plus a penalty where the value lay outside that grows with the distance. Lower is better: narrow and right."],
  error: ["Error", "Actual − forecast: above 0 the forecast was too low, below 0 too high. The same in every table."],
  interval: ["Interval", "Bounds that are to contain the actual value with the probability that is asked for, 90 % for example. They follow the errors of late."],
  anomaly: ["Anomaly", "A value, or the stretch up to it, that is unlike the series' own past: its score is above 1, the limit of what the series had before. It can lie inside the interval: the band is about this one step, the score about the stretch."],
  alert: ["Alert", "Something that began or ended: a spike, a level shift, stuck values, another unit, a gap, or forecasts that have become worse than the naive one (drift)."],
  lag: ["Lag", "Records of the input topic that have not been forecast yet."],
  ahead: ["k steps ahead", "The forecast for a time that was made k steps before it."],
  origin: ["Origin", "The last step that a forecast knew when it was made."],
  swap: ["Swap", "The moment when another model version began to forecast."],
  letter: ["Dead letter", "A record that could not be used. It is kept in a topic of its own with the reason, can be repaired, and sent again."],
  checkpoint: ["Checkpoint", "What a partition's series looked like at an offset, kept in the state topic: after a restart the service goes on from there."],
  member: ["Member", "A running instance of the service. The partitions are shared among a group's members."],
  verdict: ["Verdict", "Whether a newly trained version was promoted, and why: it is compared with the champion on the same values."],
  latency: ["Latency", "From a record's own time until its forecast could be read here."],
  rebuilt: ["To the bit", "The forecast is computed again from the values and the model that it names, and compared with what was sent: every bit must be the same."],
  lastMse: ["Last value", "The mean squared error of a forecast that repeats the last value."],
  dayMse: ["Same time a day before", "The mean squared error of a forecast that repeats what was a day before."],
  champion: ["Champion", "The version that serves. A challenger becomes champion only if its error is significantly lower."],
  challenger: ["Challenger", "A newer version that is to be compared with the champion, for example as its shadow."],
  shadow: ["Shadow", "A version that forecasts the same windows beside the champion, into a topic of its own, to be compared."],
};

/** The explanation of a term, as a title. */
export function meaning(term) {
  return `${TERMS[term][0]}: ${TERMS[term][1]}`;
}
