// Texts: the classifier's newest answers, how many of each label over time, and how sure it is.

import { Latest } from "../api.js";
import { h, refill, setText, show } from "../dom.js";
import { change } from "../state.js";
import { Lines } from "../charts/lines.js";
import * as format from "../format.js";
import * as times from "../times.js";
import { Confidence } from "./confidence.js";
import { bar, command, dataTable, empty, fill, panel } from "./parts.js";

const COLOURS = 6;

export class TextsView {
  #requests = new Latest();
  #state = {};
  #chart = null;

  constructor({ overview }) {
    this.overview = overview;
    this.labels = h("div", { class: "reasons" });
    this.over = h("div", { class: "texts-over" });
    this.confidence = new Confidence();
    this.newest = h("div", { class: "texts-newest" });
    this.newestTitle = h("span", {}, "Newest answers");
    this.message = h("div", {});
    this.parts = h("div", { class: "stack" }, h("h1", { class: "unseen" }, "Texts"),
      h("div", { class: "texts-first" },
        panel("Labels", this.labels, h("p", { class: "fine table-note" }, "Choose one: its share, its texts, and how sure the answers were."), this.confidence.element),
        panel("Share of the texts, over time", this.over)),
      panel(this.newestTitle, this.newest));
    this.parts.hidden = true;
    this.element = h("div", { class: "view long" }, this.message, this.parts);
  }

  stream() {
    return { view: "texts", label: this.#state.label };
  }

  update(state) {
    this.#state = state;
    return this.load();
  }

  load() {
    return fill(this, this.#requests.get("texts", { label: this.#state.label, limit: 50 }), (answer) => this.#show(answer));
  }

  onEvent(name, event) {
    if (name === "texts") this.#show(event);
  }

  onZone() {
    this.load();
  }

  #show({ newest, labels, over_time: over, confidence }) {
    const topic = this.overview()?.topic ?? "TOPIC", chosen = this.#state.label ?? null;
    this.parts.hidden = !labels.length;
    show(this.message, labels.length ? null : empty("No text is labelled yet.", "Start a service on the topic: ", command(`tidecast serve --topic ${topic} --model NAME@champion`)));
    refill(this.labels, this.#choice("all", labels.reduce((sum, { count }) => sum + count, 0), 1, null, null), labels.map(({ label, count, share, mean_probability: sure }) => this.#choice(label, count, share, sure, label)));
    this.#showOver(over, chosen, labels.map(({ label }) => label));
    this.confidence.show(confidence, chosen);
    setText(this.newestTitle, chosen === null ? "Newest answers" : `Newest answers: ${chosen}`);
    const position = this.newest.firstChild?.scrollTop ?? 0;
    refill(this.newest, dataTable("Newest answers", [{ name: "time" }, { name: "label" }, { name: "probability", num: true }, { name: "text", free: true }, { name: "id" }, { name: "model" }],
      newest.map(({ id, ts, label, probability, model, text }) => [times.clockSeconds(ts), h("strong", {}, label), format.percent(probability), text ?? h("span", { class: "fine" }, "not kept"), id, model])));
    this.newest.firstChild.scrollTop = position;
  }

  #choice(text, count, share, sure, value) {
    return h("button", { type: "button", class: "reason", "aria-pressed": String((this.#state.label ?? null) === value), on: { click: () => change({ label: value }) } },
      h("span", {}, text), bar(share, 1), h("span", { class: "num" }, `${format.count(count)}${value === null ? "" : `, ${format.percent(share)}`}`),
      sure === null ? null : h("span", { class: "fine reason-more" }, `${format.percent(sure)} sure on average`));
  }

  /** Shares, of the chosen label or of all but the most frequent; what a bucket has got so far is dashed. */
  #showOver({ ts, shares, partial }, chosen, order) {
    const all = order.filter((name) => shares[name]), names = chosen !== null && all.includes(chosen) ? [chosen] : all.slice(all.length === 2 ? 1 : 0, COLOURS);
    const key = names.join("\n");
    if (key !== this.drawn) {
      this.drawn = key;
      this.#chart?.destroy();
      const looks = names.map((name) => ({ name, colour: `label-${1 + (order.indexOf(name) % COLOURS)}`, mark: `line-label-${1 + (order.indexOf(name) % COLOURS)}` }));
      this.#chart = new Lines({
        label: "Share of each label over time", title: h("span", { class: "fine" }, "dashed: a span of time that is not over"), height: 260,
        lines: [...looks, ...looks.map((look) => ({ ...look, name: `${look.name}, so far`, mark: `${look.mark} dashed`, dash: [4, 4], quiet: true }))],
        write: format.percent, axis: { share: true }, range: (_, __, high) => [0, Math.min(1, Math.max(0.05, (high ?? 0) * 1.15))],
      });
      show(this.over, this.#chart.element);
    }
    const open = ts.length - (partial ? 1 : 0), share = (name, at) => shares[name][at];
    const closed = (name) => ts.map((_, at) => (at < open ? share(name, at) : null)), begun = (name) => ts.map((_, at) => (at >= open - 1 && open < ts.length ? share(name, at) : null));
    this.#chart.setData([ts, ...names.map(closed), ...names.map(begun)]);
  }

  destroy() {
    this.#requests.cancel();
    this.#chart?.destroy();
  }
}
