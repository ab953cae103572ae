// Lines over time, for the smaller charts: each with its legend, and a table beside it.

import { h } from "../dom.js";
import { colour } from "../theme.js";
import * as times from "../times.js";
import { durationAxis, timeAxis, valueAxis } from "./axes.js";
import { Chart, Legend } from "./chart.js";

/** A line of uPlot in a colour of the style sheet; `dots` is the size of its points. */
export function line(name, { dots = 0, width = 1.75, ...more } = {}) {
  return { stroke: () => colour(name), width, points: { show: dots > 0, size: dots, fill: () => colour(name) }, ...more };
}

/** A plugin: a dashed line at a value. */
export function level(value) {
  return { hooks: { draw: (chart) => {
    const at = value();
    if (at === null || at < chart.scales.y.min || at > chart.scales.y.max) return;
    const y = Math.round(chart.valToPos(at, "y", true)) + 0.5, { ctx, bbox } = chart;
    ctx.save();
    ctx.strokeStyle = colour("text-2");
    ctx.setLineDash([5, 4]);
    ctx.beginPath();
    ctx.moveTo(bbox.left, y);
    ctx.lineTo(bbox.left + bbox.width, y);
    ctx.stroke();
    ctx.restore();
  } } };
}

/**
 * options: label, height, lines [{name, colour, mark, dash, dots, quiet (not in the legend)}], write(value) -> text, axis (of valueAxis), range
 * (of uPlot's y scale), log (durations, on a logarithmic axis), plugins, title (an element or text).
 */
export class Lines {
  constructor({ label, title, height = 180, lines, write, axis, range, plugins, min = 0, log = false }) {
    Object.assign(this, { lines, write });
    this.legend = new Legend(lines.map(({ name, mark }) => ({ name, mark })));
    this.columns = [[], ...lines.map(() => [])];
    this.chart = new Chart({
      label, height, plugins,
      series: [{}, ...lines.map(({ colour: name, dash, dots, width }) => line(name, { dash, dots, width }))],
      axes: [timeAxis(), log ? durationAxis() : valueAxis(axis)],
      scales: { y: log ? { distr: 3, range: decades } : { range: range ?? ((_, low, high) => [min ?? low, (high || 1) * 1.12]) } },
      hooks: { setCursor: [() => this.#read()] },
      describe: (index) => [times.time(this.columns[0][index]), ...this.#texts(index).map((text, at) => `${lines[at].name} ${text}`)].join(", "),
      table: () => ({
        columns: ["time", ...lines.map(({ name }) => name)],
        rows: Array.from(this.columns[0], (ts, at) => [times.time(ts), ...this.#texts(at)]),
        note: `Times are ${times.zoneLabel()}.`,
      }),
    });
    this.element = h("figure", {}, h("figcaption", {}, title ?? label), this.legend.element, this.chart.element);
  }

  setData(columns) {
    this.columns = columns;
    this.chart.setData(columns);
    this.#read();
  }

  #texts(index) {
    return this.lines.map(({ quiet }, at) => (this.columns[at + 1][index] == null ? (quiet ? null : "") : this.write(this.columns[at + 1][index])));
  }

  #read() {
    const { u } = this.chart, hovered = u && u.cursor.left >= 0 ? u.cursor.idx : null;
    const index = typeof hovered === "number" ? hovered : this.columns[0].length - 1;
    if (typeof hovered === "number") this.chart.index = hovered;
    this.legend.say(index >= 0 && typeof hovered === "number" ? times.time(this.columns[0][index]) : "", this.#texts(index));
  }

  destroy() {
    this.chart.destroy();
  }
}

/** The decades that hold all values. */
function decades(_, low, high) {
  const from = Math.floor(Math.log10(low || 1)), to = Math.ceil(Math.log10(high || 10));
  return [10 ** from, 10 ** Math.max(to, from + 1)];
}
