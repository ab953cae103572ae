// Explanations of terms, on hover, focus and touch: whatever carries data-term.

import { h, setText } from "./dom.js";
import { TERMS } from "./terms.js";

const tip = h("div", { class: "tip", id: "tip", role: "tooltip", hidden: true });
let shown = null;

function reveal(event) {
  const holder = event.target instanceof Element ? event.target.closest("[data-term]") : null;
  if (holder === shown) return;
  if (!holder) return hide();
  hide();
  shown = holder;
  setText(tip, TERMS[holder.dataset.term][1]);
  tip.hidden = false;
  holder.setAttribute("aria-describedby", "tip");
  const at = holder.getBoundingClientRect(), size = tip.getBoundingClientRect();
  const left = Math.max(8, Math.min(innerWidth - size.width - 8, at.left));
  const above = at.top - size.height - 6; // the number that a term explains stands below it
  Object.assign(tip.style, { left: `${left}px`, top: `${above >= 4 ? above : at.bottom + 6}px` });
}

function hide() {
  shown?.removeAttribute("aria-describedby");
  shown = null;
  tip.hidden = true;
}

/** A word that explains itself. */
export function term(name, text = TERMS[name][0]) {
  return h("button", { type: "button", class: "term", "data-term": name }, text);
}

export function startTips() {
  document.body.append(tip);
  for (const event of ["pointerover", "focusin", "click"]) addEventListener(event, reveal);
  addEventListener("focusout", hide);
  addEventListener("scroll", hide, { passive: true, capture: true });
  addEventListener("keydown", (event) => event.key === "Escape" && hide());
}
