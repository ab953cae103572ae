// The models: versions with their verdicts, swaps, and how well each version forecast.

import { Latest } from "../api.js";
import { h, setText, show } from "../dom.js";
import { TERMS } from "../terms.js";
import { term } from "../tips.js";
import { age } from "../ages.js";
import { Lines, level } from "../charts/lines.js";
import { marksPlugin } from "../charts/marks.js";
import * as format from "../format.js";
import * as times from "../times.js";
import { badge, command, dataTable, empty, fact, fill, panel } from "./parts.js";
import { scoreTable } from "./quality.js";
import { lastSwap } from "./last-swap.js";

/** The newest version first. */
const LINES = [
  { colour: "champion", mark: "line-champion" }, { colour: "text-2", mark: "line-older" }, { colour: "text-2", mark: "line-older-2", dash: [5, 3] },
  { colour: "line-strong", mark: "line-older-3" }, { colour: "line-strong", mark: "line-older-4", dash: [2, 3] },
];

export class ModelsView {
  #requests = new Latest();
  #shown = "";
  #charts = [];

  constructor({ overview }) {
    this.overview = overview;
    this.sentence = h("p", { class: "headline" });
    this.more = h("p", { class: "headline-more" });
    this.facts = h("dl", { class: "facts", hidden: true });
    this.question = h("h1", { class: "question" });
    this.top = h("section", { class: "panel headline-panel", "aria-label": "The newest version" }, this.question, this.sentence, this.more, this.facts);
    this.chart = h("div", { class: "figures two" });
    this.chartPanel = panel(["By version, over time ", h("span", { class: "fine" }, "event time")], this.chart);
    this.versions = h("div", {});
    this.live = h("div", {});
    this.livePanel = panel(["Live scores by version ", h("span", { class: "fine" }, "event time")], this.live);
    this.shadow = h("div", {});
    this.refused = h("div", {});
    this.message = h("div", {});
    this.parts = h("div", { class: "stack" }, this.top, this.chartPanel, panel("Versions", this.versions), this.livePanel, this.shadow, this.refused);
    this.parts.hidden = true;
    this.element = h("div", { class: "view long" }, this.message, this.parts);
  }

  update() {
    return this.load();
  }

  load() {
    return fill(this, this.#requests.get("models"), (answer) => this.#show(answer));
  }

  onEvent(name, event) {
    if (name === "models") this.#show(event);
  }

  onCaughtUp() {
    this.load();
  }

  onZone() {
    this.#shown = "";
    this.load();
  }

  #show(answer) {
    const key = JSON.stringify(answer);
    if (key === this.#shown) return;
    this.#shown = key;
    const nothing = !answer.versions.length && !answer.live.length && !answer.answers?.length;
    this.parts.hidden = nothing;
    show(this.message, nothing ? empty("No model has forecast here yet.", "Train one and serve it; its versions, swaps and scores are shown here.") : null);
    this.#showTop(answer);
    this.#showCharts(answer);
    this.#showVersions(answer);
    show(this.live, answer.live.length ? scoreTable("Live scores by version", "version", answer.live.map((row) => [row.model, row]), null) : h("p", { class: "fine" }, "Nothing graded yet: a forecast is graded when what it was for has come."),
      h("p", { class: "fine table-note" }, "Errors, widths and Winkler scores are relative to each series' scale, so that series of different units add up."));
    show(this.shadow, answer.shadow.length ? this.#shadowPanel(answer) : this.#texts() ? null : h("section", { class: "panel" }, h("p", { class: "fine" }, "No ", term("shadow", "shadow"), " is running. One is started with ", command("tidecast serve --shadow NAME@challenger"))));
    show(this.refused, answer.refused.length ? this.#refusedPanel(answer.refused) : null);
  }

  /** Whether the models label texts: such answers are not graded here. */
  #texts() {
    return this.overview()?.task === "labels";
  }

  #showTop(answer) {
    const texts = this.#texts(), { headline, more, facts } = texts ? whoAnswered(answer.answers ?? []) : lastSwap(answer);
    this.livePanel.hidden = texts;
    if (texts) setText(this.question, "Which version answers?");
    else show(this.question, "Did the last ", term("swap", "swap"), " help?");
    setText(this.sentence, headline);
    setText(this.more, more);
    this.facts.hidden = !facts.length;
    show(this.facts, facts.map(([name, value, note]) => fact(name, value, note)));
  }

  #showCharts({ skill_over_time: versions, swaps }) {
    const drawn = versions.slice(-LINES.length), key = drawn.map(({ model }) => model).join("\n");
    this.chartPanel.hidden = !drawn.length;
    if (key !== this.drawn) {
      this.drawn = key;
      for (const chart of this.#charts) chart.destroy();
      const lines = drawn.map(({ model }, at) => ({ name: model, ...LINES[drawn.length - 1 - at], dots: 3 }));
      const marks = marksPlugin(() => ({ swaps: this.swaps }));
      this.#charts = [
        new Lines({ label: "Skill by version over time", title: term("skill"), height: 220, lines, write: format.skill, plugins: [level(() => 0), marks], range: (_, low, high) => [Math.min(0, low ?? 0) - 0.02, Math.max(0.05, high ?? 0) + 0.05] }),
        new Lines({ label: "Coverage by version over time", title: term("coverage"), height: 220, lines, write: format.percent, axis: { share: true }, plugins: [marks], range: (_, low) => [Math.max(0, (low ?? 0.8) - 0.05), 1] }),
      ];
      show(this.chart, this.#charts.map(({ element }) => element));
    }
    this.swaps = swaps;
    const x = [...new Set(drawn.flatMap(({ ts }) => ts))].sort((a, b) => a - b);
    const column = (version, name) => {
      const at = new Map(version.ts.map((ts, place) => [ts, version[name][place]]));
      return x.map((ts) => at.get(ts) ?? null);
    };
    ["skill", "coverage"].forEach((name, at) => this.#charts[at]?.setData([x, ...drawn.map((version) => column(version, name))]));
  }

  #showVersions({ registry, versions }) {
    const note = registry?.state === "loading" ? "The registry is being asked …"
      : registry === null || registry.state === "none" ? "No registry is known here: versions are those that forecasts name."
      : registry.error ? `The registry does not answer (${registry.error}); what is here is what was last read.` : `From the registry ${registry.uri}, model ${registry.name}.`;
    const rows = [...versions].reverse().map((version) => [
      version.label,
      h("span", { class: "badges" }, version.aliases.map((alias) => badge(alias in TERMS ? term(alias, alias) : alias, alias === "champion" ? "champion" : alias === "challenger" ? "shadow" : ""))),
      version.created ? [`${times.time(version.created - (version.created % 60_000))}, `, age(version.created, { class: "fine" })] : format.NONE,
      verdict(version.verdict),
      validation(version.scores),
    ]);
    show(this.versions,
      rows.length ? dataTable("Versions", [{ name: "version" }, { name: "aliases" }, { name: "trained, clock time" }, { name: term("verdict", "verdict"), free: true }, { name: "in validation" }], rows) : null,
      h("p", { class: "fine table-note" }, note));
  }

  #shadowPanel({ shadow, live }) {
    const champion = live.at(-1), rows = [...(champion ? [[`${champion.model} (serves)`, champion]] : []), ...shadow.map((row) => [`${row.model} (shadow)`, row])];
    const better = champion && shadow[0].skill !== null ? shadow[0].skill - champion.skill : null;
    const text = better === null ? "" : Math.abs(better) < 0.005 ? "About as good as the version that serves." : `Its skill is ${better > 0 ? "higher" : "lower"} by ${format.number(Math.abs(better))} than that of the version that serves.`;
    return panel("Shadow beside champion", h("p", { class: "lead" }, text), scoreTable("Shadow beside champion", "version", rows, null));
  }

  #refusedPanel(refused) {
    return panel("Refused", dataTable("Refused models", [{ name: "model" }, { name: "when, clock time" }, { name: "reason", free: true }],
      refused.map(({ label, sha256, reason, ts }) => [label ?? format.digest(sha256), times.time(ts), reason])));
  }

  destroy() {
    this.#requests.cancel();
    for (const chart of this.#charts) chart.destroy();
  }
}

/** Of a text service: {headline, more, facts}. */
function whoAnswered(answers) {
  const newest = [...answers].sort((a, b) => a.until - b.until).at(-1);
  if (!newest) return { headline: "No text is labelled yet.", more: "", facts: [] };
  return {
    headline: newest.model,
    more: answers.length > 1 ? `${answers.length} versions have answered.` : "It has answered all texts that are here.",
    facts: answers.map(({ model, count, since, until }) => [model, format.counted(count, "answer"), `${times.time(since)} to ${times.time(until)}`]),
  };
}

const SCORE_NAMES = { naive_last_mse: "last value, MSE", naive_day_mse: "same time a day before, MSE" };

/** The first of a version's scores; times are none. */
function validation(scores) {
  const found = Object.entries(scores ?? {}).filter(([name, value]) => typeof value === "number" && !name.endsWith("_until"));
  return found.slice(0, 3).map(([name, value]) => `${SCORE_NAMES[name] ?? name.replaceAll("_", " ")} ${format.number(value)}`).join(", ") || format.NONE;
}

function verdict(given) {
  if (!given) return h("span", { class: "fine" }, "none: the first, or promoted by hand");
  return h("span", {}, badge(given.accepted ? "promoted" : "not promoted", given.accepted ? "champion" : "bad"), ` ${given.reason}`);
}

