// Records that could not be used: by reason, and the newest of them.

import { Latest } from "../api.js";
import { h, refill, show } from "../dom.js";
import * as format from "../format.js";
import * as times from "../times.js";
import { failure, panel } from "./parts.js";

const CONTROL = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]/g;

export class DeadLetters {
  #requests = new Latest();

  constructor(onReason) {
    this.onReason = onReason;
    this.reasons = h("div", { class: "reasons" });
    this.list = h("ol", { class: "letters" });
    this.element = panel("Dead letters", h("div", { class: "letter-columns" }, this.reasons, this.list));
  }

  show({ total, by_reason: reasons }, chosen) {
    const largest = Math.max(1, ...Object.values(reasons));
    const sorted = Object.entries(reasons).sort((a, b) => b[1] - a[1]);
    const button = (text, count, value) => h("button", { type: "button", class: "reason", "aria-pressed": String((chosen ?? null) === value), on: { click: () => this.onReason(value) } },
      h("span", {}, text), h("span", { class: "reason-bar", "aria-hidden": "true" }, h("i", { style: { width: `${(100 * count) / Math.max(largest, value === null ? total : largest)}%` } })), h("span", { class: "num" }, format.count(count)));
    refill(this.reasons, total ? [sorted.length > 1 ? button("all", total, null) : null, sorted.map(([reason, count]) => button(reason.replaceAll("_", " "), count, reason))] : h("p", { class: "fine" }, "None: every record could be used."));
    this.list.hidden = !total;
  }

  async load(reason) {
    const answer = await this.#requests.get("dead-letters", { reason, limit: 20 }).catch((error) => ({ error }));
    if (answer === undefined) return;
    if (answer.error) return show(this.list, h("li", {}, failure(answer.error)));
    show(this.list, answer.rows.map((row) => this.#letter(row)));
  }

  #letter({ ts, reason, detail, topic, partition, offset, key, value }) {
    const short = printable(value ?? "").slice(0, 2000);
    return h("li", {},
      h("p", {}, h("strong", {}, reason.replaceAll("_", " ")), detail ? `: ${printable(detail)}` : ""),
      h("p", { class: "fine" }, `${times.time(ts)}, ${printable(topic)} partition ${partition}, offset ${offset}${key === null || key === undefined ? "" : `, key ${printable(key)}`}`),
      value === null || value === undefined ? null : h("pre", { tabindex: 0, "aria-label": "The record's value" }, short));
  }

  destroy() {
    this.#requests.cancel();
  }
}

/** Control characters, and those that turn text around, as what they are. */
function printable(text) {
  return text.replace(CONTROL, (character) => `\\u${character.codePointAt(0).toString(16).padStart(4, "0")}`);
}
