// One uPlot chart, kept and updated: resizing, theme, keyboard, words for screen readers, a table beside it.

import uPlot from "../../vendor/uPlot.esm.js";
import { h, setText, announce, throttled } from "../dom.js";
import { onTheme } from "../theme.js";
import { onZone, zonedDate } from "../times.js";
import { tableBeside } from "./as-table.js";

/**
 * options: label (what the chart is of), height, series, axes, bands, scales, plugins, hooks (of uPlot), and
 * describe(chart, index) -> the text at a point; table() -> {columns, rows}; pick(index); key(event) -> handled.
 */
export class Chart {
  #stops = [];
  #width = 0;

  constructor(options) {
    this.options = options;
    this.plot = h("div", {
      class: "plot",
      tabindex: 0,
      role: "application",
      "aria-roledescription": "chart",
      "aria-label": `${options.label}. Arrow keys move along it${options.pick ? ", Enter picks a point" : ""}; its table follows.`,
      style: { height: `${options.height}px` },
      on: { keydown: (event) => this.#key(event) },
    });
    this.table = tableBeside(options.label, () => options.table?.() ?? { columns: [], rows: [] });
    this.element = h("div", { class: "chart" }, this.plot, options.table ? this.table.element : null);
    this.data = options.series.map(() => []);
    this.index = null;
    this.#stops.push(onTheme(() => this.u?.redraw(false)), onZone(() => this.u?.redraw(false, true)));
    this.refreshTable = throttled(() => this.table.refresh(), 1000);
    const observer = new ResizeObserver(() => this.#fit());
    observer.observe(this.plot);
    this.#stops.push(() => observer.disconnect());
  }

  /** New data, aligned as uPlot wants it; `range` {min, max} sets what is seen of it. */
  setData(data, range = null) {
    this.data = data;
    if (!this.u) this.#create();
    if (!this.u) return;
    this.u.batch(() => {
      this.u.setData(data, range === null);
      if (range) this.u.setScale("x", range);
    });
    this.refreshTable();
  }

  setRange(range) {
    this.u?.setScale("x", range);
  }

  destroy() {
    for (const stop of this.#stops) stop();
    this.refreshTable.cancel();
    this.u?.destroy();
    this.u = null;
  }

  #create() {
    const width = this.plot.clientWidth;
    if (!width) return;
    const { series, axes, bands, scales, plugins, hooks, height, cursor } = this.options;
    this.#width = width;
    this.u = new uPlot(
      {
        width, height, series, axes, bands, plugins, hooks,
        scales: { x: { time: true }, ...scales },
        ms: 1,
        tzDate: zonedDate,
        legend: { show: false },
        padding: [10, width < 500 ? 28 : 34, 0, 0],
        cursor: { y: false, points: { size: 7, width: 2 }, drag: { x: false, y: false, setScale: false }, ...cursor },
      },
      this.data,
      this.plot,
    );
  }

  #fit() {
    const width = this.plot.clientWidth;
    if (!width || width === this.#width) return;
    if (!this.u) {
      if (this.data[0].length) this.setData(this.data, this.options.initialRange?.() ?? null);
      return;
    }
    this.#width = width;
    this.u.setSize({ width, height: this.options.height });
  }

  /** The points that the arrow keys visit: those of them that are in sight. */
  #visited() {
    const { min, max } = this.u.scales.x, [x, ...columns] = this.data, found = [];
    const stops = this.options.visit ?? (() => columns.some(Boolean));
    for (let index = 0; index < x.length; index++) {
      if (x[index] >= min && x[index] <= max && stops(index)) found.push(index);
    }
    return found;
  }

  #key(event) {
    if (!this.u || event.altKey || event.ctrlKey || event.metaKey) return;
    if (this.options.key?.(event)) return event.preventDefault();
    const move = { ArrowLeft: -1, ArrowRight: 1, PageDown: -10, PageUp: 10, Home: -Infinity, End: Infinity }[event.key];
    if (event.key === "Enter" || event.key === " ") {
      if (this.index !== null && this.options.pick) this.options.pick(this.index);
    } else if (move) this.#step(event.shiftKey && Math.abs(move) === 1 ? 10 * move : move);
    else return;
    event.preventDefault();
  }

  #step(move) {
    const points = this.#visited();
    if (!points.length) return;
    let at = points.findIndex((index) => index >= (this.index ?? Infinity));
    if (at < 0) at = points.length - (this.index === null ? 0 : 1);
    at = Math.max(0, Math.min(points.length - 1, at + move));
    this.index = points[at];
    this.u.setCursor({ left: this.u.valToPos(this.data[0][this.index], "x"), top: this.u.over.clientHeight / 2 });
    const text = this.options.describe?.(this.index);
    if (text) announce(text);
  }
}

/** What is read at the cursor, beside each colour of a chart. */
export class Legend {
  constructor(entries) {
    this.time = h("span", { class: "legend-time" });
    this.values = entries.map(() => h("span", { class: "legend-value" }));
    this.names = entries.map(({ name }) => h("span", {}, name));
    this.items = entries.map(({ mark, title }, at) => h("li", { title }, h("i", { class: `mark ${mark}`, "aria-hidden": "true" }), this.names[at], this.values[at]));
    this.element = h("div", { class: "legend" }, h("ul", {}, this.items), this.time);
  }

  rename(at, name) {
    setText(this.names[at], name);
  }

  /** `texts` by entry; null hides the entry. */
  say(time, texts) {
    setText(this.time, time);
    texts.forEach((text, at) => {
      this.items[at].hidden = text === null;
      setText(this.values[at], text ?? "");
    });
  }
}
