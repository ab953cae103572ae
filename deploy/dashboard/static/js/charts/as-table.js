// The table that stands beside each chart: the same numbers, for screen readers and for those who want digits.

import { h, show } from "../dom.js";

const MOST = 200;

/** A folded table; `make()` gives {columns: [text], rows: [[text]], note} when it is opened. */
export function tableBeside(label, make) {
  const body = h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": `${label}, as a table` });
  const element = h("details", { class: "as-table", on: { toggle: () => refresh() } }, h("summary", {}, "As a table"), body);
  function refresh() {
    if (!element.open) return show(body);
    const { columns, rows, note } = make();
    show(body, plainTable(label, columns, rows.slice(-MOST)),
      rows.length > MOST ? h("p", { class: "fine" }, `The newest ${MOST} of ${rows.length} points in sight: zoom in for the others.`) : null,
      note ? h("p", { class: "fine" }, note) : null);
  }
  return { element, refresh };
}

/** A table of texts; the first column names its row, the others are numbers. */
export function plainTable(label, columns, rows) {
  return h("table", { class: "data" },
    h("caption", { class: "unseen" }, label),
    h("thead", {}, h("tr", {}, columns.map((name, at) => h("th", { scope: "col", class: at ? "num" : null }, name)))),
    h("tbody", {}, rows.map((cells) =>
      h("tr", {}, cells.map((cell, at) => (at ? h("td", { class: "num" }, cell) : h("th", { scope: "row" }, cell)))))));
}
