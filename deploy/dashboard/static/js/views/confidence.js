// How sure a classifier's answers were: a histogram of their probabilities, from that of a guess up.

import { h, setText, show } from "../dom.js";
import * as format from "../format.js";

export class Confidence {
  constructor() {
    this.bars = h("ol", { class: "histogram", "aria-label": "How sure the answers were" });
    this.ends = h("div", { class: "histogram-ends fine", "aria-hidden": "true" });
    this.note = h("p", { class: "fine" });
    this.element = h("div", { class: "confidence" }, h("h3", {}, "Confidence"), this.bars, this.ends, this.note);
  }

  show({ bounds, counts }, label) {
    const most = Math.max(1, ...counts), total = counts.reduce((sum, count) => sum + count, 0);
    const said = (at) => `${format.percent(bounds[at], 0)} to ${format.percent(bounds[at + 1], 0)}: ${format.counted(counts[at], "text")}`;
    show(this.bars, counts.map((count, at) => h("li", { title: said(at) },
      h("i", { "aria-hidden": "true", style: { height: count ? `max(2px, ${(100 * count) / most}%)` : "0" } }), h("span", { class: "unseen" }, said(at)))));
    show(this.ends, [bounds[0], (bounds[0] + bounds.at(-1)) / 2, bounds.at(-1)].map((bound) => h("span", {}, format.percent(bound, 0))));
    setText(this.note, total ? `The probability given to the answer${label === null ? "" : ` ${label}`}, over ${format.counted(total, "text")}.` : "");
  }
}
