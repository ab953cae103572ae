// One series: its stream, its forecasts and what became of them.

import { Latest } from "../api.js";
import { announce, h, isTyping, setText, show, throttled } from "../dom.js";
import { change, read } from "../state.js";
import { shifted, zoomed } from "../charts/pan-zoom.js";
import { saveCsv } from "../share.js";
import { SeriesChart } from "./series-chart.js";
import { SeriesData } from "./series-data.js";
import { AheadSlider } from "./ahead-slider.js";
import { AlertList } from "./alert-list.js";
import { Picked } from "./picked.js";
import { PickTime } from "./pick-time.js";
import { Quality } from "./quality.js";
import { periodWords, since } from "./period.js";
import { followed, RangeBar } from "./range-bar.js";
import { SeriesHead } from "./series-head.js";
import { empty, failure, panel } from "./parts.js";

const LIMIT = 2000;
/** Values that are asked for first: what is in sight, and some to move in. */
const FIRST = 600;
const MOST_EARLY = 20;
const AHEAD_EVERY_MS = 2000;
const SCORES_EVERY_MS = 15_000;

export class SeriesView {
  title = "Series";
  #answers = new Latest();
  #ahead = new Latest();
  #scores = new Latest();
  #data = null;
  #state = {};
  #range = null;
  /** Events that came before the series' answer. */
  #early = [];

  constructor({ overview }) {
    this.overview = overview;
    this.head = new SeriesHead();
    this.chart = new SeriesChart({ onRange: (range) => this.#look(range), onPick: (ts) => this.#pick(ts), onSeen: () => this.#seen() });
    this.slider = new AheadSlider((k) => change({ k }, { replace: true }));
    this.time = new PickTime((ts) => this.#pickTime(ts));
    this.picked = new Picked(() => this.#pick(null));
    this.quality = new Quality();
    this.alerts = new AlertList((ts) => this.#centre(ts));
    this.ranges = new RangeBar({
      shift: (share) => this.#look(shifted(this.#range, share * (this.#range.max - this.#range.min), this.chart.limits)),
      zoom: (factor) => this.#look(zoomed(this.#range, factor, this.chart.limits)),
    });
    const save = h("button", { type: "button", class: "quiet fine save", on: { click: () => saveCsv(this.#state.series, ...this.chart.csv()) } }, "Save as CSV");
    this.note = h("p", { class: "fine" });
    this.stage = panel("Values and forecasts", this.ranges.element,
      this.chart.legend.element, h("div", { class: "with-save" }, this.chart.chart.element, save), h("div", { class: "below-chart" }, this.slider.element, this.time.element, this.slider.result), this.note);
    this.body = h("div", { class: "stack" }, this.stage, this.picked.element, this.quality.element, this.alerts.element);
    this.message = h("div", {});
    this.element = h("div", { class: "view" }, this.head.element, this.message, this.body);
    this.#write = throttled((range) => change({ from: Math.round(range.min), to: Math.round(range.max) }, { replace: true }), 300);
    this.#extend = throttled(() => this.#moreAhead(), AHEAD_EVERY_MS);
    this.#regrade = throttled(() => this.#newScores(), SCORES_EVERY_MS);
    addEventListener("keydown", this.#keys);
  }

  #write;
  #extend;
  #regrade;

  /** What the stream is asked for. */
  stream() {
    const { series, target } = this.#state;
    return series ? { view: "series", series, target } : { view: "overview" };
  }

  update(state) {
    const before = this.#state;
    this.#state = state;
    this.head.update(state);
    const other = ["series", "target", "since"].some((name) => before[name] !== state[name]);
    if (!state.series) return this.#none();
    if (other) this.#forget();
    if (other || !this.#data) return this.load();
    if (before.k !== state.k) this.#loadAhead();
    if (before.origin !== state.origin) this.#showPicked();
    if (["from", "to", "span"].some((name) => before[name] !== state[name])) this.#applyRange();
  }

  /** Ask for everything of the series. */
  async load() {
    const { series, from, to } = this.#state;
    const answer = await this.#ask(from && to ? around({ min: Number(from), max: Number(to) }) : { limit: FIRST });
    if (answer === undefined || this.#state.series !== series) return;
    if (answer.error) return this.#failed(answer.error);
    this.body.hidden = this.missing = false;
    show(this.message, answer.values.ts.length ? null : empty("No values in this part of the series.", from ? "Choose another time, or all of it." : "They come as soon as events of it arrive."));
    this.horizon = answer.horizon || 1;
    this.head.show(answer, periodWords(this.#state.since));
    this.head.newest({ values: this.#data.to === Infinity ? answer.values : null, forecast: answer.forecast });
    this.slider.show(this.#k(), this.horizon, answer.step);
    this.quality.show(answer, periodWords(this.#state.since));
    this.alerts.show(this.#data.alerts);
    setText(this.note, answer.history?.left_out ?? "");
    for (const event of this.#early.splice(0)) this.#add(event);
    this.#applyRange();
    this.#showPicked();
  }

  /** The series' answer for a time, with the forecasts of k steps ahead; undefined if another request came after it. */
  async #ask({ from = null, to = null, limit = LIMIT }) {
    const { series, target } = this.#state, scored = await since(this.#state.since), place = { series, target, from, to, limit };
    const [answer, ahead] = await Promise.all([
      this.#answers.get("series", { ...place, since: scored }).catch((error) => ({ error })),
      this.#ahead.get("ahead", { ...place, k: this.#k() }).catch(() => null),
    ]);
    if (!answer || answer.error || series !== this.#state.series) return answer;
    const pick = this.#data?.pick ?? null;
    this.#data = Object.assign(new SeriesData(answer, place), { pick });
    if (ahead) this.#data.setAhead(ahead);
    this.chart.earliest = this.#data.from === -Infinity ? null : answer.history?.from;
    return answer;
  }

  #k() {
    return Math.max(1, Math.min(this.horizon ?? Infinity, Number(this.#state.k) || 1));
  }

  #forget() {
    this.horizon = undefined;
    this.#data = null;
    this.missing = false;
    this.#range = null;
    this.#early = [];
    for (const later of [this.#write, this.#extend, this.#regrade]) later.cancel();
  }

  #none() {
    this.body.hidden = true;
    show(this.message, empty("No series chosen.", "Find one with the search above, or in the fleet."));
  }

  #failed(error) {
    this.#data = null;
    this.body.hidden = true;
    this.missing = error.status === 404;
    const reading = this.overview()?.reading;
    show(this.message, this.missing && reading && !reading.caught_up ? empty("This series has not been found yet.", "The topics' history is still being read; it is shown as soon as it is there.") : failure(error));
  }

  /** History that has been read by now, as a series that was not known yet. */
  onCaughtUp() {
    if (this.#state.series) this.load();
  }

  async #loadAhead() {
    const k = this.#k(), { series, target } = this.#state, { from, to } = this.#data.asked;
    const answer = await this.#ahead.get("ahead", { series, target, k, from, to }).catch(() => undefined);
    if (!answer || !this.#data || series !== this.#state.series) return;
    this.#data.setAhead(answer);
    this.slider.show(k, this.horizon, this.#data.step);
    this.#draw();
  }

  async #moreAhead() {
    const since = this.#data?.ahead.ts.at(-1);
    if (since === undefined) return this.#data && this.#loadAhead();
    const from = since - this.#k() * this.#data.step, { series, target } = this.#state;
    const answer = await this.#ahead.get("ahead", { series, target, k: this.#k(), from }).catch(() => undefined);
    if (!answer || !this.#data || series !== this.#state.series) return;
    this.#data.setAhead(answer, from);
    this.#draw();
  }

  async #newScores() {
    const { series, target } = this.#state;
    const answer = await this.#scores.get("series", { series, target, limit: 2, since: await since(this.#state.since) }).catch(() => undefined);
    if (!answer || !this.#data || series !== this.#state.series) return;
    Object.assign(this.#data, { swaps: answer.swaps });
    this.head.show(answer, periodWords(this.#state.since));
    this.quality.show(answer, periodWords(this.#state.since));
    if (this.#state.origin) this.#showPicked();
  }

  onEvent(name, event) {
    if (name !== "points") return;
    if (this.#data) this.#add(event);
    else if (this.missing) this.load();
    else if (this.#early.push(event) > MOST_EARLY) this.#early.shift();
  }

  #add(event) {
    this.head.newest(event);
    if (this.#data.to !== Infinity) return;
    const were = this.#data.alerts.length, { last } = this.#data;
    this.#data.add(event);
    if (event.alerts?.length) this.alerts.show(this.#data.alerts);
    if (this.#data.alerts.length > were) announce(event.alerts[0].text);
    if (this.#data.last === last && this.#range) return;
    show(this.message);
    if (!this.#state.from) this.#range = this.#following();
    this.#draw();
    this.#extend();
    this.#regrade();
  }

  /** The times in sight while the stream is followed: so much past, and the whole forecast. */
  #following() {
    const { last = 0, end, first = 0, step } = this.#data;
    return { min: Math.max(last - this.#span(), first - step), max: Math.max(end, last + step) };
  }

  /** How much of the past is in sight while the stream is followed. */
  #span() {
    return Number(this.#state.span) || followed(this.#data.horizon) * this.#data.step;
  }

  async #applyRange() {
    const { series, from, to } = this.#state, wanted = from && to ? { min: Number(from), max: Number(to) } : null;
    if (!wanted && this.#data.to !== Infinity) return this.load();
    const { last = 0 } = this.#data, asked = wanted ?? { min: Math.max(1, last - this.#span()), max: last };
    if (!this.#data.holds(asked)) {
      const answer = await this.#ask(wanted ? around(wanted) : { from: Math.floor(asked.min) });
      if (!answer || answer.error || series !== this.#state.series) return;
    }
    this.#range = wanted ?? this.#following();
    this.ranges.show(this.#state, this.#data, LIMIT);
    this.#draw();
  }

  /** The time in sight, for a link to a point that is picked while the chart follows what comes. */
  shared() {
    const { origin, from } = this.#state;
    return origin && !from && this.#range ? { from: Math.round(this.#range.min), to: Math.round(this.#range.max) } : {};
  }

  #look(range) {
    this.#range = range;
    this.chart.setRange(range);
    this.#write(range);
  }

  #centre(ts) {
    const half = (this.#range.max - this.#range.min) / 2;
    change({ from: Math.round(ts - half), to: Math.round(ts + half) });
    this.stage.scrollIntoView({ block: "nearest" });
  }

  #draw() {
    if (!this.#range) return;
    this.chart.draw(this.#data, this.#range);
    this.slider.setForecast(this.#data.forecast);
  }

  #seen() {
    if (this.#data && this.#range) this.slider.fared(this.#data.fared(this.#range.min, this.#range.max), this.#data.coverage);
  }

  #pick(ts) {
    change({ origin: ts });
  }

  /** A time that was typed: it is brought in sight too. */
  #pickTime(ts) {
    const { min, max } = this.#range, half = (max - min) / 2;
    const inSight = ts >= min && ts <= max;
    change({ origin: ts, ...(inSight ? {} : { from: Math.round(ts - half), to: Math.round(ts + half) }) });
  }

  async #showPicked() {
    this.time.show(this.#state.origin ? Number(this.#state.origin) : this.#data?.last);
    const { series, target, origin } = this.#state;
    const pick = await this.picked.load({ series, target, ts: origin }, this.#data);
    if (pick === undefined || !this.#data || origin !== this.#state.origin) return;
    this.#data.pick = pick;
    this.#draw();
  }

  #keys = (event) => {
    if (isTyping(event) || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    if (event.key === "[" || event.key === "]") this.head.neighbour(event.key === "[" ? -1 : 1);
    else if (event.key === "Escape" && read().origin) this.#pick(null);
  };

  destroy() {
    removeEventListener("keydown", this.#keys);
    for (const requests of [this.#answers, this.#ahead, this.#scores]) requests.cancel();
    for (const later of [this.#write, this.#extend, this.#regrade]) later.cancel();
    this.chart.destroy();
    this.quality.destroy();
    this.head.destroy();
  }
}

/** What is asked for to look at a range: half as much again on either side. */
function around({ min, max }) {
  const margin = (max - min) / 2;
  return { from: Math.max(1, Math.floor(min - margin)), to: Math.ceil(max + margin) };
}
