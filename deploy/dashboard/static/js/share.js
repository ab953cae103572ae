// Taking along what is shown: the address of a view, and the numbers of a chart.

import { announce, h } from "./dom.js";

const SAID_MS = 2000;

/** Copy the address of what is shown; where a page may not (no https), it is shown to be copied. */
export async function copyLink(button, address) {
  try {
    await navigator.clipboard.writeText(address);
  } catch {
    prompt("The address of this view", address);
    return;
  }
  announce("The address of this view is copied.");
  button.classList.add("done");
  setTimeout(() => button.classList.remove("done"), SAID_MS);
}

/** Save rows of numbers and of times as a file. */
export function saveCsv(name, columns, rows) {
  const text = [columns, ...rows].map((cells) => cells.map((cell) => cell ?? "").join(",")).join("\r\n");
  const address = URL.createObjectURL(new Blob([`${text}\r\n`], { type: "text/csv" }));
  h("a", { href: address, download: `${name.replace(/[^\p{L}\p{N}._-]+/gu, "_").slice(0, 80) || "series"}.csv` }).click();
  setTimeout(() => URL.revokeObjectURL(address), SAID_MS);
}
