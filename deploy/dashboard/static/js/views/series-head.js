// The head of a series: its name, the way to others, and its newest numbers.

import { Latest } from "../api.js";
import { announce, h, refill, setText, show } from "../dom.js";
import { change, read } from "../state.js";
import { term } from "../tips.js";
import * as format from "../format.js";
import * as times from "../times.js";
import { fact } from "./parts.js";
import { since } from "./period.js";
import { SeriesSearch } from "./series-search.js";

export class SeriesHead {
  #neighbours = new Latest();

  constructor() {
    this.name = h("h1", { class: "series-name" });
    this.facts = h("dl", { class: "facts" });
    this.search = new SeriesSearch();
    this.target = h("select", { "aria-label": "Target", on: { change: () => change({ target: this.target.value }) } });
    const step = (by, text, label) =>
      h("button", { type: "button", class: "quiet icon", "aria-label": label, title: `${label} (${by < 0 ? "[" : "]"})`, on: { click: () => this.neighbour(by) } }, text);
    this.element = h("header", { class: "series-head" },
      h("div", { class: "series-title" }, step(-1, "‹", "Previous series of the fleet"), step(1, "›", "Next series of the fleet"), this.name, this.target, this.search.element),
      this.facts);
  }

  update(state) {
    setText(this.name, state.series ?? "Series");
    this.name.title = state.series ?? "";
    document.title = `${state.series ?? "Series"} · Tidecast`;
    const place = JSON.stringify([state.series, state.target]);
    if (place !== this.place) {
      Object.assign(this, { place, answer: null, last: null, forecast: null });
      if (!state.series) show(this.facts);
    }
    this.search.close();
  }

  /** Scores, targets and the rest of a series' answer. */
  show(answer, period) {
    this.period = period;
    this.answer = answer;
    const several = answer.targets?.length > 1;
    this.target.hidden = !several;
    if (several) {
      show(this.target, answer.targets.map((name) => h("option", { value: name }, name)));
      this.target.value = answer.target;
    }
    this.#facts();
  }

  /** The newest value and forecast, of an answer or an event. */
  newest({ values, forecast }) {
    const ts = values?.ts.at(-1);
    if (ts !== undefined && ts >= (this.last?.ts ?? -Infinity)) this.last = { ts, value: values.value.at(-1) };
    if (forecast) this.forecast = forecast;
    this.#facts();
  }

  #facts() {
    const { answer, last, forecast } = this;
    if (!answer) return;
    const overall = answer.scores?.overall, asked = answer.coverage;
    const bounds = forecast?.lower ? `${format.number(forecast.lower[0])} to ${format.number(forecast.upper[0])}` : "";
    refill(this.facts,
      fact("Newest value", format.number(last?.value), last ? times.time(last.ts) : ""),
      this.#next(forecast, bounds),
      fact(term("skill"), h("span", { class: overall?.skill < 0 ? "bad-text" : null }, format.skill(overall?.skill)), overall ? `${format.count(overall.count)} values ${this.period}` : "nothing graded yet"),
      fact(term("mae"), format.number(overall?.mae), overall ? `naive ${format.number(overall.naive_mae)}` : ""),
      fact(term("coverage"), format.percent(overall?.coverage), asked ? `asked ${format.percent(asked, 0)}` : "no intervals"),
      fact("Model", forecast?.model ?? format.NONE, forecast?.source === "naive" ? "naive until the window is full" : ""));
  }

  /** What is forecast for the next step; where the newest values have no forecast, since when. */
  #next(forecast, bounds) {
    const { last } = this, step = forecast?.times?.length > 1 ? forecast.times[1] - forecast.times[0] : forecast?.start - forecast?.ts;
    if (forecast && last && last.ts - forecast.ts > 2.5 * step) return fact("Next step", "no forecast", `since ${times.time(forecast.ts)}: the window fills again after a gap, or nothing serves`);
    return fact("Next step", format.number(forecast?.forecast[0]), bounds);
  }

  /** The series before or after this one, in the fleet's order. */
  async neighbour(by) {
    const state = read(), at = Number(state.row ?? (by > 0 ? -1 : 1)) + by;
    if (at < 0) return announce("This is the first series.");
    const { q, sort, desc } = state;
    const answer = await this.#neighbours.get("fleet", { q, sort, desc, since: await since(state.since), offset: at, limit: 1 }).catch(() => undefined);
    const found = answer?.rows[0];
    if (!found) return answer && announce("This is the last series.");
    change({ series: found.series, target: found.target, row: at, origin: null, from: null, to: null });
    return announce(found.series);
  }

  destroy() {
    this.#neighbours.cancel();
  }
}

