// Pieces that the views share.

import { h, show } from "../dom.js";

let headings = 0;

/** A titled part of a view. */
export function panel(title, ...children) {
  const id = `heading-${++headings}`;
  return h("section", { class: "panel", "aria-labelledby": id }, h("h2", { id }, title), children);
}

/** What is not there, and what to do. `how` may hold elements. */
export function empty(what, ...how) {
  return h("div", { class: "empty" }, h("p", { class: "empty-what" }, what), how.length ? h("p", {}, how) : null);
}

/** A command, to be copied. */
export function command(text) {
  const button = h("button", { type: "button", class: "quiet", on: { click: () => copy(text, button) } }, "Copy");
  return h("span", { class: "command" }, h("code", { tabindex: 0 }, text), button);
}

async function copy(text, button) {
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    const range = document.createRange();
    range.selectNodeContents(button.previousSibling);
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    button.textContent = "Selected: Ctrl C";
  }
  setTimeout(() => (button.textContent = "Copy"), 2500);
}

export function failure(error) {
  return h("div", { class: "empty failure", role: "alert" }, h("p", { class: "empty-what" }, error.message));
}

/** Show a view's answer once it is there, or why there is none; nothing of one that a later question has overtaken. */
export async function fill(view, asked, shown) {
  const answer = await asked.catch((error) => ({ error }));
  if (answer === undefined) return;
  if (!answer.error) return shown(answer);
  view.parts.hidden = true;
  show(view.message, failure(answer.error));
}

/** A bar that shows a number against the largest. */
export function bar(value, most) {
  return h("span", { class: "reason-bar", "aria-hidden": "true" }, h("i", { style: { width: `${(100 * value) / Math.max(most, 1e-9)}%` } }));
}

/** A number with its name. */
export function fact(name, value, note) {
  return h("div", { class: "fact" }, h("dt", {}, name), h("dd", {}, value, note ? h("span", { class: "fact-note" }, note) : null));
}

/** A word in a colour of its own, such as an alias. */
export function badge(text, kind = "") {
  return h("span", { class: `badge ${kind}` }, text);
}

/** A table of cells (texts or elements); columns {name, num (a number), free (a text that may break)}. */
export function dataTable(label, columns, rows, foot) {
  return h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": `${label}, table` },
    h("table", { class: "data" },
      h("thead", {}, h("tr", {}, columns.map((column) => h("th", { scope: "col", class: kind(column) }, column.name)))),
      h("tbody", {}, rows.map((cells) => row(columns, cells))),
      foot ? h("tfoot", {}, row(columns, foot)) : null));
}

function row(columns, cells) {
  return h("tr", {}, cells.map((cell, at) => (at ? h("td", { class: kind(columns[at]) }, cell) : h("th", { scope: "row" }, cell))));
}

function kind({ num, free }) {
  return num ? "num" : free ? "free" : null;
}
