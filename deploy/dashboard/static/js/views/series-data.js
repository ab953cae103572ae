// What is known of the series in sight: bounded columns, and their alignment for the chart.

/** Points of each kind that are kept while a stream comes in. */
export const MOST = 4000;

const COLUMNS = ["actual", "aheadLower", "aheadUpper", "ahead", "lower", "upper", "forecast", "pickLower", "pickUpper", "pick"];
export const AT = Object.fromEntries(COLUMNS.map((name, place) => [name, place + 1]));

const NOTHING = () => ({ ts: [], made: [], forecast: [], lower: [], upper: [], model: [] });

/** `asked` is what the server was asked for: {from, to, limit}. */
export class SeriesData {
  constructor(answer, { from, to, limit }) {
    const { ts } = answer.values;
    this.from = from ? Number(from) : ts.length < limit ? -Infinity : ts[0];
    this.to = to ? Number(to) : Infinity;
    this.asked = { from, to };
    this.thinned = Boolean(from) && ts.length > 0.9 * limit;
    this.values = answer.values;
    this.anomalies = new Map(answer.anomalies.ts.map((ts, at) => [ts, answer.anomalies.score[at]]));
    this.forecast = answer.forecast;
    this.alerts = answer.alerts;
    this.swaps = answer.swaps;
    this.step = answer.step || 1;
    this.horizon = answer.horizon || 1;
    this.coverage = answer.coverage;
    this.ahead = NOTHING();
    this.pick = null;
  }

  get first() {
    return this.values.ts[0];
  }

  get last() {
    return this.values.ts.at(-1);
  }

  /** The end of what may be looked at: of the newest forecast, or of the values. */
  get end() {
    return Math.max(this.last ?? -Infinity, this.forecast?.times.at(-1) ?? -Infinity);
  }

  /** Whether a time is here, as finely as it can be looked at. */
  holds({ min, max }) {
    const begun = min >= this.from - this.step || this.from === -Infinity;
    return begun && max <= this.to + this.step && !(this.thinned && max - min < 0.45 * (this.last - this.first));
  }

  /** Points that came in since: the oldest beyond the most that are kept go. */
  add({ values, anomalies, forecast, alerts }) {
    const { ts, value } = this.values, last = this.last ?? -Infinity;
    values?.ts.forEach((each, at) => {
      if (each > last) ts.push(each), value.push(values.value[at]);
    });
    anomalies?.ts.forEach((each, at) => this.anomalies.set(each, anomalies.score[at]));
    if (forecast && forecast.ts >= (this.forecast?.ts ?? -Infinity)) this.forecast = forecast;
    for (const alert of alerts ?? []) this.#addAlert(alert);
    const surplus = ts.length - MOST;
    if (surplus > MOST / 10) this.#trim(surplus);
  }

  #addAlert(alert) {
    const same = this.alerts.findIndex((each) => each.kind === alert.kind && each.since === alert.since);
    if (same >= 0) this.alerts[same] = alert;
    else this.alerts.push(alert);
  }

  #trim(surplus) {
    this.values.ts.splice(0, surplus);
    this.values.value.splice(0, surplus);
    for (const ts of this.anomalies.keys()) if (ts < this.first) this.anomalies.delete(ts);
    const gone = this.ahead.ts.findIndex((ts) => ts >= this.first);
    if (gone > 0) for (const column of Object.values(this.ahead)) column?.splice?.(0, gone);
    this.alerts = this.alerts.slice(-MOST / 10);
    this.from = this.first;
  }

  /** Forecasts of k steps ahead: all of them, or those since `from`, which take the place of what was there. */
  setAhead(answer, from = null) {
    if (from === null) this.ahead = answer;
    else {
      const keep = this.ahead.ts.findIndex((ts) => ts >= from);
      for (const name of ["ts", "made", "forecast", "lower", "upper", "model"]) {
        if (!this.ahead[name] || !answer[name]) continue;
        if (keep >= 0) this.ahead[name].length = keep;
        for (const each of answer[name]) this.ahead[name].push(each);
      }
    }
    const surplus = this.ahead.ts.length - 2 * MOST;
    if (surplus > 0) for (const column of Object.values(this.ahead)) column?.splice?.(0, surplus);
  }

  /** The columns of the chart over the union of all times. A hole in the values is null, an alignment undefined. */
  aligned() {
    const { forecast, pick } = this, ahead = this.#aheadOfValues();
    const parts = [
      [this.values.ts, [[AT.actual, this.values.value]]],
      [ahead.ts, [[AT.aheadLower, ahead.lower], [AT.aheadUpper, ahead.upper], [AT.ahead, ahead.forecast]]],
      fan(forecast, AT.lower, AT.upper, AT.forecast),
      fan(pick, AT.pickLower, AT.pickUpper, AT.pick),
    ];
    const holes = this.#holes(this.values.ts), x = union([...parts.map(([ts]) => ts), holes.map(([start]) => start + this.step)]);
    const place = new Map();
    x.forEach((ts, at) => place.set(ts, at));
    const table = [x, ...COLUMNS.map(() => new Array(x.length))];
    for (const [ts, columns] of parts) {
      for (const [at, column] of columns) {
        if (column) for (let row = 0; row < ts.length; row++) table[at][place.get(ts[row])] = column[row];
      }
    }
    for (const [start, end] of holes) table[AT.actual].fill(null, place.get(start) + 1, place.get(end));
    for (const [start, end] of this.#holes(ahead.ts)) {
      for (const at of [AT.aheadLower, AT.aheadUpper, AT.ahead]) table[at].fill(null, place.get(start) + 1, place.get(end));
    }
    this.#connect(table, place);
    return table;
  }

  /** What was forecast k steps ahead for times that have come: those to come are the newest forecast's. */
  #aheadOfValues() {
    const { ahead, last = Infinity } = this, end = ahead.ts.findLastIndex((ts) => ts <= last) + 1;
    return { ts: ahead.ts.slice(0, end), lower: ahead.lower, upper: ahead.upper, forecast: ahead.forecast };
  }

  /** A fan begins at the value that it knew last: no gap between history and forecast. */
  #connect(table, place) {
    for (const [made, columns] of [[this.forecast?.ts, [AT.lower, AT.upper, AT.forecast]], [this.pick?.ts, [AT.pickLower, AT.pickUpper, AT.pick]]]) {
      const at = place.get(made), actual = at === undefined ? undefined : table[AT.actual][at];
      if (typeof actual === "number") for (const column of columns) table[column][at] ??= actual;
    }
  }

  /** Why no forecast k steps ahead is here for a time; "" where there is one, or where none can be. */
  whyNone(at) {
    const ts = this.ahead.ts.filter((_, place) => this.ahead.forecast[place] !== null), next = ts.findIndex((each) => each >= at);
    if (next < 1 || ts[next] === at || !this.#holes(ts.slice(next - 1, next + 1)).length) return "";
    const begun = ts[next - 1] - (this.ahead.k ?? 1) * this.step;
    const gap = this.#holes(this.values.ts).some(([start, end]) => start < ts[next] && end > begun);
    return gap ? "none: the window was refilled after a gap" : "none was made";
  }

  /** The times before and after each hole in some times. */
  #holes(ts) {
    const found = [], mean = ts.length > 1 ? (ts.at(-1) - ts[0]) / (ts.length - 1) : 0;
    const usual = this.thinned ? 8 * mean : 1.5 * Math.max(this.step, median(ts));
    for (let at = 1; at < ts.length; at++) {
      if (ts[at] - ts[at - 1] > usual) found.push([ts[at - 1], ts[at]]);
    }
    return found;
  }

  /** How the forecasts of k steps ahead fared between two times; null where only peaks and troughs are here. */
  fared(from, to) {
    if (this.thinned) return null;
    const actual = new Map(this.values.ts.map((ts, at) => [ts, this.values.value[at]]));
    let count = 0, error = 0, bounded = 0, inside = 0;
    this.ahead.ts.forEach((ts, at) => {
      const value = actual.get(ts);
      if (ts < from || ts > to || typeof value !== "number" || typeof this.ahead.forecast[at] !== "number") return;
      count++;
      error += Math.abs(value - this.ahead.forecast[at]);
      const lower = this.ahead.lower?.[at], upper = this.ahead.upper?.[at];
      if (typeof lower !== "number" || typeof upper !== "number") return;
      bounded++;
      inside += value >= lower && value <= upper;
    });
    return { count, mae: count ? error / count : null, coverage: bounded ? inside / bounded : null };
  }
}

function fan(forecast, lower, upper, line) {
  return forecast ? [forecast.times, [[lower, forecast.lower], [upper, forecast.upper], [line, forecast.forecast]]] : [[], []];
}

function union(columns) {
  const all = new Set();
  for (const column of columns) for (const ts of column) all.add(ts);
  return Float64Array.from(all).sort();
}

function median(ts) {
  if (ts.length < 3) return 0;
  const steps = ts.slice(-201).map((each, at, part) => (at ? each - part[at - 1] : Infinity)).sort((a, b) => a - b);
  return steps[Math.floor((steps.length - 1) / 2)];
}
