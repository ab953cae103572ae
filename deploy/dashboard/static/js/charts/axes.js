// Axes: times in the reader's zone, values with as many digits as they need.

import * as times from "../times.js";
import { duration } from "../format.js";
import { colour } from "../theme.js";

const FONT = "12px Inter, system-ui, sans-serif";
const DAY_MS = 86_400_000;
const SCALES = [[1e12, " trillion"], [1e9, " billion"], [1e6, " million"]];

function dress(axis) {
  return {
    stroke: () => colour("text-2"),
    font: FONT,
    labelFont: FONT,
    grid: { stroke: () => colour("grid"), width: 1 },
    ticks: { show: false },
    gap: 6,
    ...axis,
  };
}

/** Times: the clock, with the day where it changes. */
export function timeAxis() {
  return dress({ size: 38, space: 72, label: times.zoneLabel, labelSize: 16, labelGap: 0, values: (_, splits, __, ___, step) => timeLabels(splits, step) });
}

function timeLabels(splits, step) {
  if (step >= 360 * DAY_MS) return splits.map(times.year);
  const [label, group] = step >= 27 * DAY_MS ? [times.monthName, times.year] : step >= DAY_MS ? [times.dayName, times.year] : [step < 60_000 ? times.clockSeconds : times.clock, times.day];
  let before = "";
  return splits.map((ts) => {
    const changes = group(ts) !== before;
    before = group(ts);
    return changes ? `${label(ts)}\n${before}` : label(ts);
  });
}

/** Values; `unit` follows each number, `share` writes per cent. */
export function valueAxis({ label = null, unit = "", share = false, size = axisSize } = {}) {
  return dress({
    size,
    label,
    labelSize: label ? 20 : 0,
    space: 34,
    values: (_, splits, __, ___, step) => splits.map((value) => valueLabel(share ? value * 100 : value, share ? step * 100 : step, share ? " %" : unit)),
  });
}

/** Milliseconds on a logarithmic scale. */
export function durationAxis() {
  return dress({ size: 56, values: (_, splits) => splits.map((value) => (value === null ? "" : duration(value))) });
}

/** Whole numbers, such as steps ahead. */
export function stepAxis(label) {
  return dress({ size: 26, space: 40, label, labelSize: 16, labelGap: 0, incrs: [1, 2, 3, 4, 5, 6, 8, 10, 12, 24, 48, 96, 192, 384], values: (_, splits) => splits.map(String) });
}

function valueLabel(value, step, unit) {
  if (value === null) return "";
  const [scale, word] = SCALES.find(([each]) => Math.abs(value) >= each) ?? [1, ""];
  let digits = Math.min(8, Math.max(0, -Math.floor(Math.log10(step / scale) + 1e-9)));
  if (digits < 8 && !isWhole((step / scale) * 10 ** digits)) digits++; // steps of 2.5
  const text = (value / scale).toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
  return text.replace("-", "\u2212") + word + unit;
}

function isWhole(value) {
  return Math.abs(value - Math.round(value)) < 1e-6;
}

/** As wide as the longest label, in steps, so that the plot does not twitch. */
function axisSize(chart, labels, axisIndex, cycle) {
  const axis = chart.axes[axisIndex];
  if (cycle > 1) return axis._size;
  const longest = Math.max(0, ...(labels ?? []).map((text) => text.length));
  return Math.max(44, Math.ceil((longest * 7.2 + 14) / 8) * 8);
}
