// The large chart of a series: values, forecasts k steps ahead over them, the newest fan, and a picked one.

import { Chart, Legend } from "../charts/chart.js";
import { timeAxis, valueAxis } from "../charts/axes.js";
import { marksPlugin } from "../charts/marks.js";
import { panZoom, shifted, zoomed } from "../charts/pan-zoom.js";
import { colour } from "../theme.js";
import { meaning } from "../terms.js";
import * as format from "../format.js";
import * as times from "../times.js";
import { AT } from "./series-data.js";

const NARROW = 560;

function line(name, width, extra = {}) {
  return { stroke: () => colour(name), width, spanGaps: false, points: { show: false }, ...extra };
}

const HIDDEN = { width: 0, points: { show: false }, stroke: "transparent" };
const FAN = [HIDDEN, HIDDEN];

function columns() {
  return [
    {},
    line("actual", 1.75, { points: { show: (chart, at) => sparse(chart, at), size: 4, fill: () => colour("actual") } }),
    ...FAN, line("forecast", 1.25, { dash: [4, 3] }),
    ...FAN, line("forecast", 2),
    ...FAN, line("pick", 2),
  ];
}

/** Single points are drawn where there are few. */
function sparse(chart, at) {
  const seen = chart.data[0].length && chart.series[0].idxs ? chart.series[0].idxs[1] - chart.series[0].idxs[0] : 0;
  return at === AT.actual && seen < 90;
}

function band(upper, lower, name) {
  return { series: [upper, lower], fill: () => colour(name) };
}

/** Callbacks: onRange({min, max}) of what the reader asked for, onPick(ts), onSeen() after each drawing. */
export class SeriesChart {
  constructor({ onRange, onPick, onSeen }) {
    this.data = null;
    this.range = { min: 0, max: 1 };
    this.onRange = onRange;
    this.onPick = onPick;
    this.legend = new Legend([
      { name: "actual", mark: "line-actual" },
      { name: "forecast, k steps ahead", mark: "line-ahead", title: meaning("ahead") },
      { name: "newest forecast", mark: "line-forecast" },
      { name: "forecast from the picked point", mark: "line-pick", title: meaning("origin") },
      { name: "interval", mark: "wash-interval", title: meaning("interval") },
      { name: "anomaly (by its own past)", mark: "diamond", title: meaning("anomaly") },
      { name: "alert", mark: "triangle", title: meaning("alert") },
      { name: "model swap", mark: "line-swap", title: meaning("swap") },
    ]);
    this.chart = new Chart({
      label: "Values and forecasts over time",
      height: matchMedia(`(max-width: ${NARROW}px)`).matches ? 280 : 400,
      series: columns(),
      bands: [band(AT.aheadUpper, AT.aheadLower, "interval-wash"), band(AT.upper, AT.lower, "fan-wash"), band(AT.pickUpper, AT.pickLower, "pick-wash")],
      axes: [timeAxis(), valueAxis()],
      scales: { y: { range: (_, low, high) => padded(low, high) } },
      plugins: [
        marksPlugin(() => this.#marks()),
        panZoom({ range: () => this.range, limits: () => this.limits, set: onRange, pick: (index) => this.#picked(index) }),
      ],
      hooks: { setCursor: [() => this.#read()], draw: [() => onSeen()] },
      initialRange: () => this.range,
      visit: (index) => this.columns[AT.actual][index] != null || this.columns[AT.forecast][index] != null,
      describe: (index) => this.#words(index).join(", "),
      pick: (index) => this.#picked(index),
      key: (event) => this.#key(event),
      table: () => this.#table(),
    });
    this.columns = columns().map(() => []);
  }

  /** Draw what `data` holds now, between the times of `range`. */
  draw(data, range) {
    this.data = data;
    this.range = range;
    this.legend.rename(1, `forecast ${format.counted(data.ahead.k ?? 1, "step")} ahead`);
    this.columns = data.aligned();
    this.chart.setData(this.columns, range);
    this.#read();
  }

  setRange(range) {
    this.range = range;
    this.chart.setRange(range);
    this.chart.refreshTable();
  }

  get limits() {
    const { first, end, step, ahead } = this.data;
    const begins = Math.min(this.earliest ?? Infinity, first ?? Infinity, ahead.ts[0] ?? Infinity);
    return { min: begins - 2 * step, max: end + 2 * step, least: 4 * step };
  }

  destroy() {
    this.chart.destroy();
  }

  #picked(index) {
    const ts = this.columns[0][index];
    if (ts !== undefined) this.onPick(ts);
  }

  #key(event) {
    const change = { "+": (range) => zoomed(range, 0.5, this.limits), "-": (range) => zoomed(range, 2, this.limits),
      "<": (range) => shifted(range, -(range.max - range.min) / 2, this.limits), ">": (range) => shifted(range, (range.max - range.min) / 2, this.limits) }[event.key];
    if (change) this.onRange(change(this.range));
    return Boolean(change);
  }

  #marks() {
    const { data } = this;
    if (!data) return {};
    const at = new Map(data.values.ts.map((ts, place) => [ts, data.values.value[place]]));
    const anomalies = [...data.anomalies.keys()].map((ts) => [ts, at.get(ts)]).filter(([, value]) => typeof value === "number");
    return { anomalies, alerts: data.alerts, swaps: data.swaps, last: data.last ?? null, pick: data.pick?.ts ?? null };
  }

  #read() {
    if (!this.data) return;
    const { u } = this.chart, hovered = u?.cursor.idx;
    const index = typeof hovered === "number" && u.cursor.left >= 0 ? hovered : null;
    if (index !== null) this.chart.index = index;
    const at = (column) => (index === null ? null : this.columns[column]?.[index]);
    const shown = (column) => (at(column) == null ? "" : format.number(at(column)));
    const ts = index === null ? this.data.last : this.columns[0][index];
    const newest = index === null && this.data.values.value.length ? format.number(this.data.values.value.at(-1)) : null;
    const bounds = [AT.ahead, AT.forecast, AT.pick].find((column) => at(column - 2) != null);
    this.legend.say(ts === undefined ? "" : `${index === null ? "newest: " : ""}${times.time(ts)}`, [
      newest ?? shown(AT.actual),
      this.data.ahead.ts.length ? shown(AT.ahead) || (index === null ? "" : this.data.whyNone(ts)) : null,
      this.data.forecast ? shown(AT.forecast) : null,
      this.data.pick ? shown(AT.pick) : null,
      this.data.coverage ? (bounds ? `${format.number(at(bounds - 2))} to ${format.number(at(bounds - 1))}` : "") : null,
      this.data.anomalies.size ? (this.data.anomalies.has(ts) && index !== null ? `score ${format.number(this.data.anomalies.get(ts))}` : "") : null,
      this.data.alerts.length ? "" : null,
      this.data.swaps.length ? "" : null,
    ]);
  }

  #words(index) {
    const value = (column) => this.columns[column][index], words = [times.time(this.columns[0][index])];
    if (value(AT.actual) != null) words.push(`actual ${format.number(value(AT.actual))}`);
    if (value(AT.ahead) != null) words.push(`was forecast as ${format.number(value(AT.ahead))}`);
    else words.push(this.data.whyNone(this.columns[0][index]));
    if (value(AT.actual) == null && value(AT.forecast) != null) words.push(`forecast ${format.number(value(AT.forecast))}`);
    if (this.data.anomalies.has(this.columns[0][index])) words.push("anomaly");
    return words.filter(Boolean);
  }

  /** What is in sight, as the columns and rows of a CSV file. */
  csv() {
    const { columns: all, range } = this, names = ["actual", "ahead", "aheadLower", "aheadUpper", "forecast", "lower", "upper"], rows = [];
    all[0].forEach((ts, at) => {
      if (ts >= range.min && ts <= range.max) rows.push([new Date(ts).toISOString(), ...names.map((name) => all[AT[name]][at])]);
    });
    const k = this.data.ahead.k ?? 1;
    return [["time", "actual", `forecast_${k}_ahead`, `lower_${k}_ahead`, `upper_${k}_ahead`, "newest_forecast", "newest_lower", "newest_upper"], rows];
  }

  #table() {
    const { columns: all, range } = this, rows = [];
    const text = (column, at) => (all[column][at] == null ? "" : format.number(all[column][at]));
    for (let at = 0; at < all[0].length; at++) {
      if (all[0][at] < range.min || all[0][at] > range.max) continue;
      const own = all[AT.forecast][at] != null && all[AT.actual][at] == null ? AT.forecast : AT.ahead;
      const score = this.data?.anomalies.get(all[0][at]);
      rows.push([times.time(all[0][at]), text(AT.actual, at), text(own, at), text(own - 2, at), text(own - 1, at), score ? format.number(score) : ""]);
    }
    return { columns: ["time", "actual", "forecast", "lower", "upper", "anomaly score"], rows, note: `Times are ${times.zoneLabel()}.` };
  }
}

function padded(low, high) {
  if (low === null || high === null) return [0, 1];
  const room = (high - low || Math.abs(high) || 1) * 0.06;
  return [low >= 0 && low - room < 0 ? 0 : low - room, high + room * 1.6];
}
