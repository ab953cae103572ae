// Ages of things, which grow while one looks.

import { h, setText } from "./dom.js";
import * as format from "./format.js";

const EVERY_MS = 5000;

/** "5 min ago", kept true. */
export function age(ts, properties = {}) {
  return setAge(h("span", properties), ts);
}

/** Let an element say how old `ts` is; null is not known. */
export function setAge(element, ts) {
  if (ts === null || ts === undefined) delete element.dataset.ago;
  else element.dataset.ago = ts;
  setText(element, format.ago(ts));
  return element;
}

export function startAges() {
  setInterval(() => {
    if (document.hidden) return;
    for (const element of document.querySelectorAll("[data-ago]")) setText(element, format.ago(Number(element.dataset.ago)));
  }, EVERY_MS);
}
