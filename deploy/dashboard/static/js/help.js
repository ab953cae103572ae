// The keys, and what the words mean.

import { h, show } from "./dom.js";
import { TERMS } from "./terms.js";

const KEYS = [
  ["/", "search for a series"],
  ["1 … 4", "the views"],
  ["↑ ↓, Enter", "move in the fleet, open the series"],
  ["[ ]", "previous and next series, in the fleet's order"],
  ["← →", "in a chart: move along it (with Shift by ten)"],
  ["Enter", "in a chart: pick a point; Esc unpicks it"],
  ["+ − < >", "in a chart: zoom, move in time"],
  ["drag", "zooms; with Shift, or by touch, it moves in time"],
  ["t", "dark or light"],
  ["z", "this computer's time zone, or UTC"],
];

export function showHelp() {
  const dialog = document.getElementById("help-dialog");
  if (!dialog.firstChild) {
    const close = h("button", { type: "button", class: "quiet close", "aria-label": "Close", on: { click: () => dialog.close() } }, "×");
    show(dialog, close,
      h("h2", { id: "help-title" }, "Keys and terms"),
      h("div", { class: "help-columns" },
        h("dl", { class: "keys" }, KEYS.map(([key, what]) => [h("dt", {}, h("kbd", {}, key)), h("dd", {}, what)])),
        h("dl", { class: "terms" }, Object.values(TERMS).map(([name, what]) => [h("dt", {}, name), h("dd", {}, what)]))));
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  }
  if (!dialog.open) dialog.showModal();
}
