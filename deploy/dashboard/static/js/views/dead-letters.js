// Records that could not be used: by reason, and the newest of each kind, with what can be done.

import { Latest } from "../api.js";
import { age } from "../ages.js";
import { h, refill, show } from "../dom.js";
import { term } from "../tips.js";
import * as format from "../format.js";
import * as times from "../times.js";
import { bar, command, failure, panel } from "./parts.js";

const CONTROL = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]/g;
/** Milliseconds since 1970, of this century. */
const MOMENT = /\b\d{12,13}\b/g;
const LIMIT = 20;

export class DeadLetters {
  #requests = new Latest();

  constructor(onReason) {
    this.onReason = onReason;
    this.reasons = h("div", { class: "reasons" });
    this.list = h("ol", { class: "letters", tabindex: 0, "aria-label": "Newest dead letters" });
    this.element = panel(term("letter", "Dead letters"), h("div", { class: "letter-columns" }, this.reasons, this.list));
  }

  /** `reasons` [{reason, count, first_ts, newest_ts, recent}], the most frequent first. */
  show({ total, reasons }, chosen) {
    const largest = reasons[0]?.count ?? 1;
    const button = (text, count, value, about) => h("button", { type: "button", class: "reason", "aria-pressed": String((chosen ?? null) === value), on: { click: () => this.onReason(value) } },
      h("span", {}, text), bar(count, value === null ? total : largest), h("span", { class: "num" }, format.count(count)), about);
    const recent = ({ first_ts: first, newest_ts: newest, recent: lately }) => h("span", { class: "fine reason-more" },
      `since ${times.time(first)}, newest `, age(newest), `, ${lately ? format.count(lately) : "none"} in 5 min`);
    refill(this.reasons, total ? [reasons.length > 1 ? button("all", total, null) : null, reasons.map((each) => button(plain(each.reason), each.count, each.reason, recent(each)))] : h("p", { class: "fine" }, "None: every record could be used."));
    this.list.hidden = !total;
  }

  async load(reason) {
    const answer = await this.#requests.get("dead-letters", { reason, limit: LIMIT }).catch((error) => ({ error }));
    if (answer === undefined) return;
    if (answer.error) return show(this.list, h("li", {}, failure(answer.error)));
    const unfolded = new Set([...this.list.querySelectorAll("details[open]")].map((details) => details.dataset.kind));
    refill(this.list, answer.rows.map((row) => this.#letter(row, unfolded)));
  }

  /** A row stands for all that differ from it in numbers only. */
  #letter({ ts, reason, detail, topic, partition, offset, key, value, advice, command: repair, count: alike = 1 }, unfolded) {
    const kind = `${reason} ${(detail ?? "").replace(/\d+/g, "")}`, short = printable(value ?? "").slice(0, 2000);
    return h("li", {},
      h("p", {}, h("strong", {}, plain(reason)), detail ? `: ${readable(printable(detail))}` : ""),
      h("p", { class: "fine" }, `${times.time(ts)}, ${printable(topic)} partition ${partition}, offset ${offset}${key === null || key === undefined ? "" : `, key ${printable(key)}`}`,
        alike > 1 ? `; ${format.count(alike - 1)} like it before` : ""),
      value === null || value === undefined ? null : h("pre", { tabindex: 0, "aria-label": "The record's value" }, short),
      advice ? h("details", { class: "as-table", "data-kind": kind, open: unfolded.has(kind) }, h("summary", {}, "What to do"), h("p", { class: "fine" }, advice), repair ? command(repair) : null) : null);
  }

  destroy() {
    this.#requests.cancel();
  }
}

function plain(reason) {
  return reason.replaceAll("_", " ");
}

/** Moments as people read them, and how far two of them lie apart. */
function readable(detail) {
  const moments = (detail.match(MOMENT) ?? []).map(Number);
  const apart = moments.length === 2 && moments[0] > moments[1] ? ` (${format.duration(moments[0] - moments[1])} ahead)` : "";
  return detail.replace(MOMENT, (ms) => times.time(Number(ms))) + apart;
}

/** Control characters, and those that turn text around, as what they are. */
function printable(text) {
  return text.replace(CONTROL, (character) => `\\u${character.codePointAt(0).toString(16).padStart(4, "0")}`);
}
