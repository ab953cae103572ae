// One line of the fleet; it is filled again and again as the table scrolls.

import { h, setText } from "../dom.js";
import { drawSpark } from "../charts/spark.js";
import { go, hrefOf, note } from "../state.js";
import * as format from "../format.js";
import { setAge } from "../ages.js";
import * as times from "../times.js";
import { KINDS } from "./alert-list.js";

export const HEADINGS = [
  { name: "Series", sort: "name" },
  { name: "Lately" },
  { name: "Newest", sort: "newest", num: true },
  { name: "Skill", sort: "skill", num: true, term: "skill" },
  { name: "Coverage", sort: "coverage", num: true, term: "coverage" },
  { name: "Width / scale", sort: "width", num: true, term: "relative" },
  { name: "Newest alert", sort: "alert", term: "alert" },
  { name: "Model" },
];
const DAY_MS = 86_400_000;
/** A skill that is written as 0.00. */
const NOTHING = 0.005;
const SPARK = { width: 132, height: 28 };
const narrow = matchMedia("(max-width: 700px)");

/** The height of a row in pixels, as the style sheet has it. */
export function ROW_HEIGHT() {
  return narrow.matches ? 60 : 40;
}

export class FleetRow {
  constructor() {
    this.link = h("a", { href: "?", class: "fleet-name" });
    this.silent = h("span", { class: "badge", hidden: true }, "silent");
    this.canvas = h("canvas", { "aria-hidden": "true", class: "spark" });
    this.value = h("span", {});
    this.when = h("span", { class: "fine when" });
    this.skill = h("span", { class: "skill-text" });
    this.bar = h("i", {});
    this.coverage = h("td", { class: "num wide" });
    this.width = h("td", { class: "num wide" });
    this.kind = h("span", { class: "badge", hidden: true });
    this.mark = h("span", { class: "badge bad narrow-only", hidden: true });
    this.alertTime = h("span", { class: "fine" });
    this.alert = h("td", { class: "fleet-alert" }, this.kind, this.alertTime);
    this.model = h("td", { class: "fine wide model" });
    this.element = h("tr", { on: { click: (event) => this.#open(event) } },
      h("th", { scope: "row" }, this.link, this.silent, this.mark), h("td", { class: "fleet-spark" }, this.canvas),
      h("td", { class: "num fleet-value" }, this.value, this.when),
      h("td", { class: "num fleet-skill" }, this.skill, h("span", { class: "skill-bar", "aria-hidden": "true" }, this.bar)),
      this.coverage, this.width, this.alert, this.model);
  }

  #open(event) {
    if (this.at === undefined || event.button || event.metaKey || event.ctrlKey || event.shiftKey) return;
    if (!event.target.closest("a") && getSelection().toString()) return;
    event.preventDefault();
    note({ row: this.at });
    go(Object.fromEntries(new URLSearchParams(this.link.getAttribute("href"))));
  }

  /** Show a row of the fleet's answer; undefined is one that has not come yet. */
  show(row, at, place, several, most) {
    this.at = row ? at : undefined;
    this.element.setAttribute("aria-rowindex", String(at + 2));
    this.element.classList.toggle("waiting", !row);
    this.link.setAttribute("href", row ? hrefOf({ view: "series", series: row.series, target: row.target, ...place, row: at }) : "?");
    setText(this.link, row ? (several ? `${row.series} · ${row.target}` : row.series) : "…");
    this.link.title = row?.series ?? "";
    this.silent.hidden = !row?.silent;
    drawSpark(this.canvas, row?.spark ?? [], SPARK.width, SPARK.height);
    setText(this.value, format.number(row?.value));
    this.#showWhen(row?.ts);
    this.#showSkill(row?.skill, most);
    setText(this.coverage, format.percent(row?.coverage));
    setText(this.width, format.number(row?.width));
    setText(this.model, row?.source === "naive" ? "naive" : (row?.model ?? ""));
    this.model.title = row?.model ?? "";
    this.#showAlert(row?.alert);
  }

  /** The bar is as long as the skill is against the largest one in sight. */
  #showSkill(skill, most) {
    setText(this.skill, format.skill(skill));
    const shown = Math.abs(skill ?? 0) >= NOTHING;
    this.skill.classList.toggle("bad-text", shown && skill < 0);
    const size = shown ? Math.min(1, Math.abs(skill) / most) * 50 : 0;
    Object.assign(this.bar.style, { width: `${size}%`, left: skill < 0 ? "auto" : "50%", right: skill < 0 ? "50%" : "auto" });
    this.bar.className = !shown ? "none" : skill < 0 ? "worse" : "";
  }

  #showWhen(ts) {
    const recent = ts && Math.abs(Date.now() - ts) < DAY_MS;
    if (recent) return setAge(this.when, ts);
    delete this.when.dataset.ago;
    return setText(this.when, ts ? times.time(ts) : "");
  }

  #showAlert(alert) {
    this.kind.hidden = !alert;
    setText(this.kind, alert ? (KINDS[alert.kind] ?? alert.kind) : "");
    this.mark.hidden = !alert?.open;
    setText(this.mark, this.kind.textContent);
    this.kind.classList.toggle("bad", Boolean(alert?.open));
    setText(this.alertTime, alert ? (alert.open ? `since ${times.time(alert.since ?? alert.ts)}` : `over, ${times.time(alert.until ?? alert.ts)}`) : "");
    this.alert.title = alert?.text ?? "";
  }
}
