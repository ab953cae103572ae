// How good a series' forecasts are: by step ahead beside the naive forecast, and by model version.

import { h, setText, show } from "../dom.js";
import { term } from "../tips.js";
import { Chart } from "../charts/chart.js";
import { level, line } from "../charts/lines.js";
import { stepAxis, valueAxis } from "../charts/axes.js";
import * as format from "../format.js";
import * as times from "../times.js";
import { dataTable, panel } from "./parts.js";

const HEIGHT = 170;
const POINTS = { dots: 5 };

export class Quality {
  constructor() {
    this.rows = [];
    this.asked = null;
    const chart = (label, series, axis, options) => new Chart({
      label, height: HEIGHT, series: [{}, ...series], axes: [stepAxis("steps ahead"), axis],
      scales: { x: { time: false, range: (_, low, high) => (low === high ? [low - 1, high + 1] : [low, high]) }, ...options?.scales }, plugins: options?.plugins,
      describe: (index) => this.#words(index),
    });
    this.charts = [
      chart("Mean absolute error by steps ahead", [line("forecast", POINTS), line("naive", { ...POINTS, dash: [6, 4] })], valueAxis(), { scales: { y: { range: (_, __, high) => [0, (high || 1) * 1.1] } } }),
      chart("Skill by steps ahead", [line("forecast", POINTS)], valueAxis(), { plugins: [level(() => 0)], scales: { y: { range: (_, low, high) => [Math.min(0, low ?? 0) - 0.02, Math.max(0.1, high ?? 0) * 1.1] } } }),
      chart("Coverage by steps ahead", [line("forecast", POINTS)], valueAxis({ share: true }), { plugins: [level(() => this.asked)], scales: { y: { range: (_, low) => [Math.max(0, Math.min(low ?? 0.7, this.asked ?? 1) - 0.1), 1] } } }),
    ];
    const figure = (title, legend, at) => h("figure", {}, h("figcaption", {}, title, legend), this.charts[at].element);
    const mark = (kind, text) => [h("i", { class: `mark ${kind}`, "aria-hidden": "true" }), h("span", { class: "fine" }, text)];
    this.coverageNote = h("span", { class: "fine" });
    this.byStep = h("div", {});
    this.byModel = h("div", {});
    this.none = h("div", {});
    this.period = h("span", { class: "fine" });
    this.why = h("p", { class: "why" });
    this.figures = h("div", { class: "figures" },
      figure(term("mae", "Mean absolute error"), [mark("line-forecast", "model"), mark("line-naive", "naive")], 0),
      figure(term("skill"), [h("span", { class: "fine" }, "above 0 is better than naive")], 1),
      figure(term("coverage"), [this.coverageNote], 2));
    this.element = h("div", { class: "stack" },
      panel(["How far off, by steps ahead", this.period], this.none, this.why, this.figures, h("details", { class: "as-table" }, h("summary", {}, "As a table"), this.byStep)),
      panel("By model version", this.byModel));
  }

  show(answer, period) {
    const { by_step: rows = [], by_model: models = [], overall } = answer.scores ?? {};
    const key = JSON.stringify([answer.scores, times.zone(), period]);
    if (key === this.shown) return;
    this.shown = key;
    this.rows = rows;
    this.asked = answer.coverage;
    setText(this.period, ` · ${period}`);
    this.coverageNote.textContent = answer.coverage ? `asked ${format.percent(answer.coverage, 0)}` : "no intervals are asked for";
    show(this.none, rows.length ? null : h("p", { class: "fine" }, "Nothing graded yet: a forecast is graded when what it was for has come."));
    this.figures.hidden = !rows.length;
    setText(this.why, overall ? [where(rows, overall), sinceSwap(models), open(answer.alerts ?? [])].filter(Boolean).join(" ") : "");
    const x = rows.map(({ step }) => step), column = (name) => rows.map((each) => each[name] ?? null);
    this.charts[0].setData([x, column("mae"), column("naive_mae")]);
    this.charts[1].setData([x, column("skill")]);
    this.charts[2].setData([x, column("coverage")]);
    show(this.byStep, scoreTable("Scores by steps ahead", "steps ahead", rows.map((each) => [String(each.step), each]), overall));
    show(this.byModel, models.length ? scoreTable("Scores by model version", "version", models.map((each) => [each.model, each]), null) : h("p", { class: "fine" }, "Nothing graded yet."));
  }

  #words(index) {
    const each = this.rows[index];
    return each ? `${each.step} steps ahead: error ${format.number(each.mae)}, naive ${format.number(each.naive_mae)}, skill ${format.skill(each.skill)}, coverage ${format.percent(each.coverage)}` : "";
  }

  destroy() {
    for (const chart of this.charts) chart.destroy();
  }
}

/** At which steps ahead the forecasts are worse than the naive ones. */
function where(rows, overall) {
  if (overall.skill === null) return "The naive forecast had no error, as the values did not change: nothing can be better.";
  const bad = rows.filter(({ skill }) => skill < 0), worst = bad.reduce((found, row) => (row.skill < found.skill ? row : found), bad[0]);
  if (!bad.length) return "Better than the naive forecast at every step ahead.";
  const most = `most at ${format.counted(worst.step, "step")} (skill ${format.skill(worst.skill)})`;
  if (bad.length === rows.length) return rows.length > 1 ? `Worse than the naive forecast at every step ahead, ${most}.` : "Worse than the naive forecast.";
  if (bad.at(-1) === rows.at(bad.length - 1)) return `Worse than the naive forecast up to ${format.counted(bad.at(-1).step, "step")} ahead, better beyond; ${most}.`;
  if (bad[0] === rows.at(-bad.length)) return `Worse than the naive forecast from ${format.counted(bad[0].step, "step")} ahead on, better before; ${most}.`;
  return `Worse than the naive forecast at ${bad.length} of ${rows.length} scored steps, ${most}.`;
}

/** How the newest version does beside the one before. */
function sinceSwap(models) {
  const [before, after] = models.slice(-2);
  if (typeof after?.skill !== "number" || typeof before.skill !== "number") return "";
  return `Skill of ${after.model} ${format.skill(after.skill)}, of ${before.model} before it ${format.skill(before.skill)}.`;
}

function open(alerts) {
  const found = alerts.filter(({ phase, until }) => phase === "begin" && (until === null || until === undefined));
  return found.length ? `Open: ${found.map(({ kind, since }) => `${kind}, since ${times.time(since)}`).join("; ")}.` : "";
}

/** Scores as a table; `rows` are [name, Row]. */
export function scoreTable(label, first, rows, overall) {
  const columns = [
    { name: first }, { name: term("skill"), num: true }, { name: term("mae"), num: true }, { name: term("naive", "naive MAE"), num: true },
    { name: term("coverage"), num: true }, { name: term("width"), num: true }, { name: term("winkler", "Winkler"), num: true },
    { name: "values graded", num: true }, { name: "graded from" }, { name: "until" },
  ];
  const all = rows.map(([, row]) => row).concat(overall ?? []), texts = new Map();
  for (const name of ["mae", "naive_mae", "width", "winkler"]) format.column(all.map((row) => row[name])).forEach((text, at) => texts.set(`${at} ${name}`, text));
  const cells = (name, row, at = all.indexOf(row)) => [
    name, h("span", { class: row.skill < 0 ? "bad-text" : null }, format.skill(row.skill)), texts.get(`${at} mae`), texts.get(`${at} naive_mae`),
    format.percent(row.coverage), texts.get(`${at} width`), texts.get(`${at} winkler`), format.count(row.count), times.time(row.since), times.time(row.until),
  ];
  return dataTable(label, columns, rows.map(([name, row]) => cells(name, row)), overall ? cells("all", overall) : null);
}
