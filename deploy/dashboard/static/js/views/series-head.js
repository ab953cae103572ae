// The head of a series: its name, the way to others, and its newest numbers.

import { Latest } from "../api.js";
import { announce, h, setText, show } from "../dom.js";
import { change, read } from "../state.js";
import { term } from "../tips.js";
import * as format from "../format.js";
import * as times from "../times.js";
import { fact } from "./parts.js";
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
    if (!state.series) show(this.facts);
    this.search.close();
  }

  show(answer, data) {
    this.answer = answer;
    this.data = data;
    const several = answer.targets?.length > 1;
    this.target.hidden = !several;
    if (several) {
      show(this.target, answer.targets.map((name) => h("option", { value: name }, name)));
      this.target.value = answer.target;
    }
    this.#facts();
  }

  newest() {
    if (this.data) this.#facts();
  }

  #facts() {
    const { values, forecast, coverage, last } = this.data, overall = this.answer.scores?.overall;
    const next = forecast?.forecast?.[0];
    const bounds = forecast?.lower ? `${format.number(forecast.lower[0])} to ${format.number(forecast.upper[0])}` : "";
    show(this.facts,
      fact("Newest value", format.number(values.value.at(-1)), last === undefined ? "" : times.time(last)),
      fact("Next step", format.number(next), bounds),
      fact(term("skill"), h("span", { class: overall?.skill < 0 ? "bad-text" : null }, format.skill(overall?.skill)), overall ? `${format.count(overall.count)} values graded` : "nothing graded yet"),
      fact(term("mae"), format.number(overall?.mae), overall ? `naive ${format.number(overall.naive_mae)}` : ""),
      fact(term("coverage"), format.percent(overall?.coverage), coverage ? `asked ${format.percent(coverage, 0)}` : "no intervals"),
      fact("Model", forecast?.model ?? format.NONE, forecast?.source === "naive" ? "naive until the window is full" : ""));
  }

  /** The series before or after this one, in the fleet's order. */
  async neighbour(by) {
    const state = read(), at = Number(state.row ?? (by > 0 ? -1 : 1)) + by;
    if (at < 0) return announce("This is the first series.");
    const { q, sort, desc } = state;
    const answer = await this.#neighbours.get("fleet", { q, sort, desc, offset: at, limit: 1 }).catch(() => undefined);
    const found = answer?.rows[0];
    if (!found) return answer && announce("This is the last series.");
    change({ series: found.series, target: found.target, row: at, origin: null, from: null, to: null });
    return announce(found.series);
  }

  destroy() {
    this.#neighbours.cancel();
  }
}

