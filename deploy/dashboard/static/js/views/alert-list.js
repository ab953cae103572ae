// The alerts of a series in words.

import { h, show } from "../dom.js";
import * as format from "../format.js";
import * as times from "../times.js";
import { badge, panel } from "./parts.js";

export const KINDS = { spike: "spike", level_shift: "level shift", drift: "drift", stuck: "stuck", unit_change: "unit change", gap: "gap" };

export class AlertList {
  constructor(onChoose) {
    this.onChoose = onChoose;
    this.list = h("ol", { class: "alerts" });
    this.element = panel("Alerts", this.list);
    this.shown = "";
  }

  show(alerts) {
    const newest = [...alerts].sort((a, b) => b.ts - a.ts).slice(0, 50);
    const key = JSON.stringify([newest, times.zone()]);
    if (key === this.shown) return;
    this.shown = key;
    if (!newest.length) return show(this.list, h("li", { class: "fine" }, "None: no spike, level shift, gap, stuck value, unit change or drift was seen in what is here."));
    show(this.list, newest.map((alert) => this.#item(alert)), times.zone() === "UTC" ? null : h("li", { class: "fine" }, "The times inside these sentences are UTC."));
  }

  #item(alert) {
    const open = alert.until === null && alert.phase !== "end";
    const lasted = open ? "since" : `${format.duration((alert.until ?? alert.ts) - alert.since)}, from`;
    return h("li", {},
      badge(KINDS[alert.kind] ?? alert.kind, open ? "bad" : ""),
      h("span", { class: "alert-text" }, alert.text),
      h("button", { type: "button", class: "quiet", title: "Show it in the chart", on: { click: () => this.onChoose(alert.since) } },
        `${lasted} ${times.time(alert.since)}`));
  }
}
