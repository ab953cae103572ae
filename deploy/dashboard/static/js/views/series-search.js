// Going to another series by a part of its name: a combobox.

import { Latest } from "../api.js";
import { h, show, throttled } from "../dom.js";
import { change } from "../state.js";
import * as format from "../format.js";

const MOST = 12;

export class SeriesSearch {
  #requests = new Latest();
  #found = [];
  #active = -1;

  constructor() {
    this.input = h("input", {
      type: "search", class: "search", placeholder: "Go to a series", "aria-label": "Go to a series", role: "combobox", autocomplete: "off",
      spellcheck: "false", "aria-expanded": "false", "aria-controls": "found-series", "aria-autocomplete": "list", "data-search": true,
      on: { input: throttled(() => this.#ask(), 120), focus: () => this.#ask(), blur: () => setTimeout(() => this.close(), 150), keydown: (event) => this.#key(event) },
    });
    this.list = h("ul", { class: "found", id: "found-series", role: "listbox", "aria-label": "Series found", hidden: true });
    this.element = h("div", { class: "finder" }, this.input, this.list);
  }

  async #ask() {
    const answer = await this.#requests.get("fleet", { q: this.input.value, sort: this.input.value ? "name" : "skill", limit: MOST }).catch(() => undefined);
    if (!answer || document.activeElement !== this.input) return;
    this.#found = answer.rows;
    this.#active = -1;
    show(this.list, answer.rows.map((row, at) => this.#option(row, at)),
      answer.matching > answer.rows.length ? h("li", { class: "fine", role: "presentation" }, `${format.count(answer.matching)} series: type more of the name`) : null,
      answer.matching ? null : h("li", { class: "fine", role: "presentation" }, "No series of that name"));
    this.list.hidden = false;
    this.input.setAttribute("aria-expanded", "true");
    this.#mark();
  }

  #option(row, at) {
    return h("li", { role: "option", id: `found-${at}`, "aria-selected": "false", on: { pointerdown: (event) => { event.preventDefault(); this.#choose(row); } } },
      h("span", { class: "found-name" }, row.series), h("span", { class: "fine" }, `skill ${format.skill(row.skill)}`));
  }

  #key(event) {
    const move = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (move && this.#found.length) {
      this.#active = (this.#active + move + this.#found.length) % this.#found.length;
      this.#mark();
    } else if (event.key === "Enter" && this.#found.length) this.#choose(this.#found[Math.max(0, this.#active)]);
    else if (event.key === "Escape") this.input.blur();
    else return;
    event.preventDefault();
  }

  #mark() {
    [...this.list.querySelectorAll("[role=option]")].forEach((option, at) => option.setAttribute("aria-selected", String(at === this.#active)));
    if (this.#active >= 0) this.input.setAttribute("aria-activedescendant", `found-${this.#active}`);
    else this.input.removeAttribute("aria-activedescendant");
    this.list.children[this.#active]?.scrollIntoView({ block: "nearest" });
  }

  #choose(row) {
    this.input.value = "";
    this.input.blur();
    change({ series: row.series, target: row.target, q: null, row: null, origin: null, from: null, to: null });
  }

  close() {
    this.#requests.cancel();
    this.list.hidden = true;
    this.input.setAttribute("aria-expanded", "false");
  }
}
