// Which time is in sight: following the stream, all of it, or moved and zoomed by buttons.

import { h, refill } from "../dom.js";
import { change } from "../state.js";
import * as format from "../format.js";

const PRESETS = [["1 h", 3_600_000], ["6 h", 21_600_000], ["1 d", 86_400_000], ["7 d", 604_800_000], ["30 d", 2_592_000_000]];
/** Fewest steps that are worth a preset. */
const FEWEST = 8;
/** Milliseconds from which on a span means all there is. */
const MOST_SPAN = 1e14;

/** Steps of the past that are in sight while the stream is followed. */
export function followed(horizon) {
  return Math.max(5 * horizon, 100);
}

export class RangeBar {
  /** `shift(share)` moves by a share of what is in sight, `zoom(factor)` changes how much that is. */
  constructor({ shift, zoom }) {
    this.ranges = h("div", { class: "group", role: "group", "aria-label": "Time in sight" });
    const button = (text, label, action) => h("button", { type: "button", class: "quiet", "aria-label": label, title: label, on: { click: action } }, text);
    this.element = h("div", { class: "toolbar" }, this.ranges,
      h("div", { class: "group", role: "group", "aria-label": "Move in time" },
        button("←", "Earlier", () => shift(-0.5)), button("→", "Later", () => shift(0.5)), button("+", "Zoom in", () => zoom(0.5)), button("−", "Zoom out", () => zoom(2))));
  }

  show({ from, span }, { step, horizon }, most) {
    const button = (text, pressed, chosen, title) =>
      h("button", { type: "button", class: "choice", "aria-pressed": String(pressed), title, on: { click: () => change({ from: null, to: null, span: chosen }) } }, text);
    const fitting = PRESETS.filter(([, ms]) => ms >= FEWEST * step && ms < most * step);
    refill(this.ranges,
      button("Live", !from && !span, null, `Follow the stream: ${format.counted(followed(horizon), "step")} and the forecast`),
      fitting.map(([text, ms]) => button(text, !from && Number(span) === ms, ms, `Follow the stream: the newest ${text}`)),
      button("All", !from && span > MOST_SPAN, 2 * MOST_SPAN, "All that is kept here"));
  }
}
