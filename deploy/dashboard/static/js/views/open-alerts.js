// What is strange now: the open alerts of all series, above the fleet.

import { Latest } from "../api.js";
import { h, refill, setText } from "../dom.js";
import { hrefOf } from "../state.js";
import * as format from "../format.js";
import * as times from "../times.js";
import { KINDS } from "./alert-list.js";
import { badge } from "./parts.js";

const MOST = 50;

export class OpenAlerts {
  #requests = new Latest();

  constructor() {
    this.title = h("summary", {});
    this.list = h("ul", { class: "alerts", tabindex: 0, "aria-label": "Open alerts" });
    this.element = h("details", { class: "panel open-alerts", hidden: true }, this.title, this.list);
  }

  /** `number` of them are open, as the overview says. */
  async load(number = 0) {
    const answer = number ? await this.#requests.get("alerts", { open: 1 }).catch(() => null) : null;
    if (answer === undefined) return;
    const rows = answer?.rows ?? [], total = answer?.total ?? rows.length, key = JSON.stringify([rows, times.zone()]);
    if (key === this.shown) return;
    this.shown = key;
    if (this.element.hidden) this.element.open = true;
    this.element.hidden = !rows.length;
    setText(this.title, `${format.counted(total, "alert")} ${total === 1 ? "is" : "are"} open`);
    refill(this.list, rows.slice(0, MOST).map((row) => this.#item(row)), total > MOST ? h("li", { class: "fine" }, `The newest ${MOST}; sort the fleet by its newest alert to see all.`) : null);
  }

  #item({ series, target, kind, since, ts, text }) {
    const began = since ?? ts, said = text.startsWith(`${series}: `) ? text.slice(series.length + 2) : text;
    return h("li", {}, badge(KINDS[kind] ?? kind, "bad"),
      h("a", { href: hrefOf({ view: "series", series, target }) }, series), h("span", { class: "alert-text" }, said), h("span", { class: "fine" }, `since ${times.time(began)}`));
  }

  destroy() {
    this.#requests.cancel();
  }
}
