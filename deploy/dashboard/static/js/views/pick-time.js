// Picking a time by typing it: the same as choosing its point in the chart.

import { h } from "../dom.js";
import * as times from "../times.js";

const MINUTE = 60_000;

export class PickTime {
  constructor(onPick) {
    this.input = h("input", { type: "datetime-local", id: "pick-time", on: { change: () => this.#changed(onPick) } });
    this.element = h("div", { class: "pick-time" }, h("label", { for: "pick-time" }, "Go to time: what was forecast for"), this.input);
  }

  #changed(onPick) {
    const ts = times.zone() === "UTC" ? Date.parse(`${this.input.value}Z`) : new Date(this.input.value).getTime();
    if (Number.isFinite(ts)) onPick(ts);
  }

  /** Show the picked time, or the newest one, where a reader begins. */
  show(ts) {
    if (ts === null || ts === undefined || document.activeElement === this.input) return;
    const date = times.zone() === "UTC" ? new Date(ts) : new Date(ts - new Date(ts).getTimezoneOffset() * MINUTE);
    this.input.value = date.toISOString().slice(0, 16);
  }
}
