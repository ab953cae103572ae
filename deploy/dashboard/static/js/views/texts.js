// Texts: the classifier's newest answers, how many of each label over time, and how sure it is.

import { Latest } from "../api.js";
import { h, refill, show } from "../dom.js";
import { change } from "../state.js";
import { Lines } from "../charts/lines.js";
import * as format from "../format.js";
import * as times from "../times.js";
import { command, dataTable, empty, failure, panel } from "./parts.js";

const COLOURS = 6;

export class TextsView {
  #requests = new Latest();
  #state = {};
  #chart = null;

  constructor({ overview }) {
    this.overview = overview;
    this.labels = h("div", { class: "reasons" });
    this.over = h("div", {});
    this.confidence = h("div", {});
    this.newest = h("div", {});
    this.message = h("div", {});
    this.parts = h("div", { class: "stack" }, h("h1", { class: "unseen" }, "Texts"),
      h("div", { class: "columns first" }, panel("Labels", this.labels, h("p", { class: "fine" }, "Choose one to see only its texts.")), panel("Confidence", this.confidence)),
      panel("Labels over time", this.over), panel("Newest answers", this.newest));
    this.element = h("div", { class: "view" }, this.message, this.parts);
  }

  stream() {
    return { view: "texts", label: this.#state.label };
  }

  update(state) {
    this.#state = state;
    return this.load();
  }

  async load() {
    const answer = await this.#requests.get("texts", { label: this.#state.label, limit: 50 }).catch((error) => ({ error }));
    if (answer === undefined) return;
    if (answer.error) {
      this.parts.hidden = true;
      return show(this.message, failure(answer.error));
    }
    this.#show(answer);
  }

  onEvent(name, event) {
    if (name === "texts") this.#show(event);
  }

  onZone() {
    this.load();
  }

  #show({ newest, labels, over_time: over, confidence }) {
    const topic = this.overview()?.topic ?? "TOPIC";
    this.parts.hidden = !labels.length;
    show(this.message, labels.length ? null : empty("No text is labelled yet.", "Start a service on the topic: ", command(`tidecast serve --topic ${topic} --model NAME@champion`)));
    refill(this.labels, this.#choice("all", labels.reduce((sum, { count }) => sum + count, 0), 1, null, null), labels.map(({ label, count, share, mean_probability: sure }) => this.#choice(label, count, share, sure, label)));
    this.#showOver(over);
    this.#showConfidence(confidence);
    show(this.newest, dataTable("Newest answers", [{ name: "id" }, { name: "label" }, { name: "probability", num: true }, { name: "text", free: true }, { name: "time" }, { name: "model" }],
      newest.map(({ id, ts, label, probability, model, text }) => [id, h("strong", {}, label), format.percent(probability), text ?? h("span", { class: "fine" }, "not kept"), times.time(ts), model])));
  }

  #choice(text, count, share, sure, value) {
    return h("button", { type: "button", class: "reason", "aria-pressed": String((this.#state.label ?? null) === value), on: { click: () => change({ label: value }) } },
      h("span", {}, text), h("span", { class: "reason-bar", "aria-hidden": "true" }, h("i", { style: { width: `${100 * share}%` } })),
      h("span", { class: "num" }, `${format.count(count)}${value === null ? "" : `, ${format.percent(share)}`}`),
      sure === null ? null : h("span", { class: "fine" }, `${format.percent(sure)} sure on average`));
  }

  #showOver({ ts, counts }) {
    const names = Object.keys(counts).slice(0, COLOURS), key = names.join("\n");
    if (key !== this.drawn) {
      this.drawn = key;
      this.#chart?.destroy();
      this.#chart = new Lines({ label: "Texts of each label over time", title: "Texts", height: 200, lines: names.map((name, at) => ({ name, colour: `label-${at + 1}`, mark: `line-label-${at + 1}` })), write: format.count });
      show(this.over, this.#chart.element);
    }
    this.#chart.setData([ts, ...names.map((name) => counts[name])]);
  }

  #showConfidence({ bounds, counts }) {
    const most = Math.max(1, ...counts), total = counts.reduce((sum, count) => sum + count, 0);
    const label = (at) => `${format.percent(bounds[at], 0)} to ${format.percent(bounds[at + 1], 0)}`;
    show(this.confidence,
      h("table", { class: "histogram" }, h("caption", { class: "unseen" }, "How sure the answers were"),
        h("thead", { class: "unseen" }, h("tr", {}, h("th", { scope: "col" }, "probability"), h("th", { scope: "col" }, "texts"))),
        h("tbody", {}, counts.map((count, at) => h("tr", {}, h("th", { scope: "row" }, label(at)),
          h("td", {}, h("span", { class: "reason-bar", "aria-hidden": "true" }, h("i", { style: { width: `${(100 * count) / most}%` } })), h("span", {}, format.count(count))))))),
      h("p", { class: "fine" }, total ? `The probability that the classifier gave to its answer, over ${format.counted(total, "text")}.` : ""));
  }

  destroy() {
    this.#requests.cancel();
    this.#chart?.destroy();
  }
}
