// All series: searched, sorted, one line each. Only the lines in sight are elements.

import { Latest } from "../api.js";
import { h, refill, setText, show, throttled } from "../dom.js";
import { change, read } from "../state.js";
import { onTheme } from "../theme.js";
import * as format from "../format.js";
import { command, empty, failure } from "./parts.js";
import { PERIODS, since } from "./period.js";
import { OpenAlerts } from "./open-alerts.js";
import { FleetRow, HEADINGS, ROW_HEIGHT } from "./fleet-row.js";

const WINDOW = 75;
const MOST_KEPT = 1500;
/** Browsers draw no taller element than these rows. */
const MOST_ROWS = 400_000;
/** What each order is called, and whether its first rows are the largest. */
const SORTS = { skill: ["Worst skill", false], width: ["Widest interval", true], alert: ["Newest alert", true], coverage: ["Lowest coverage", false], newest: ["Newest value", true], name: ["Name", false] };

export class FleetView {
  #requests = new Latest();
  #rows = new Map();
  /** Names of targets: where there are several, a row says which it is of. */
  #targets = new Set();
  #pool = [];
  #state = {};
  #first = 0;
  #matching = 0;
  #active = 0;
  #since = null;
  /** Whether the reader comes back to a row, which is to have the focus. */
  #returned = false;
  #stopTheme;

  constructor({ follow, overview }) {
    this.follow = throttled(follow, 400);
    this.overview = overview;
    this.search = h("input", { type: "search", class: "search", placeholder: "Search the series", "aria-label": "Search the series", "data-search": true, spellcheck: "false", autocomplete: "off",
      on: { input: throttled(() => change({ q: this.search.value || null, row: null }, { replace: true }), 150), keydown: (event) => this.#searchKey(event) } });
    this.sort = h("select", { id: "sort", on: { change: () => change({ sort: this.sort.value, desc: null }) } }, Object.entries(SORTS).map(([value, [text]]) => h("option", { value }, text)));
    this.since = h("div", { class: "group", role: "group", "aria-label": "Skill of the last" });
    this.count = h("p", { class: "count", role: "status" });
    this.head = h("tr", {});
    this.before = h("tr", { class: "spacer", "aria-hidden": "true" }, h("td", {}));
    this.after = h("tr", { class: "spacer", "aria-hidden": "true" }, h("td", {}));
    this.body = h("tbody", {}, this.before, this.after);
    this.scroller = h("div", { class: "fleet-scroll", tabindex: -1, on: { scroll: () => this.#scrolled(), keydown: (event) => this.#key(event) } },
      h("table", { class: "fleet", "aria-label": "Series" }, h("thead", {}, this.head), this.body));
    this.alerts = new OpenAlerts();
    this.message = h("div", {});
    this.element = h("div", { class: "view fleet-view" },
      h("div", { class: "fleet-bar" }, h("h1", { class: "unseen" }, "Fleet"), this.search,
        h("span", { class: "labelled" }, h("label", { for: "sort", class: "fine" }, "sort by"), this.sort), h("span", { class: "labelled" }, h("span", { class: "fine" }, "skill of"), this.since), this.count),
      this.alerts.element, this.message, this.scroller);
    this.#stopTheme = onTheme(() => this.#render());
    this.resize = new ResizeObserver(() => this.#render());
    this.resize.observe(this.scroller);
  }

  #query() {
    const { q, sort, desc } = this.#state;
    return { q, sort, desc, since: this.#since };
  }

  stream() {
    return { view: "fleet", ...this.#query(), offset: this.#offset(), limit: WINDOW };
  }

  async update(state) {
    this.#state = state;
    if (this.search.value !== (state.q ?? "") && document.activeElement !== this.search) this.search.value = state.q ?? "";
    this.sort.value = SORTS[state.sort] ? state.sort : "skill";
    this.#controls();
    this.#since = await since(state.since);
    if (this.#state !== state) return;
    this.#rows.clear();
    this.#active = Math.max(0, Number(state.row) || 0);
    this.scroller.scrollTop = this.#active > 5 ? (this.#active - 3) * ROW_HEIGHT() : 0;
    this.#returned = state.row !== undefined;
    await this.load();
    if (state.since) this.follow();
  }

  async load() {
    const offset = this.#offset();
    const [answer] = await Promise.all([
      this.#requests.get("fleet", { ...this.#query(), offset, limit: WINDOW }).catch((error) => ({ error })),
      this.#matching ? null : this.alerts.load(this.overview()?.open_alerts),
    ]);
    if (answer === undefined) return;
    if (answer.error) return this.#rows.size || show(this.message, failure(answer.error));
    this.#take(answer, offset);
    if (!this.#holds()) this.load();
  }

  onEvent(name, event) {
    if (name === "fleet") this.#take(event, this.live ?? this.#offset());
  }

  onOverview({ open_alerts: open }) {
    this.alerts.load(open);
    if (!this.#matching) this.load();
  }

  onZone() {
    this.#render();
  }

  #take({ total, matching, rows }, offset) {
    for (const [at, row] of rows.entries()) {
      this.#rows.set(offset + at, row);
      this.#targets.add(row.target);
    }
    if (this.#rows.size > MOST_KEPT) for (const at of this.#rows.keys()) if (Math.abs(at - this.#first) > WINDOW) this.#rows.delete(at);
    this.#matching = Math.min(matching, MOST_ROWS);
    const text = matching === total ? format.counted(total, "series", "series") : `${format.count(matching)} of ${format.counted(total, "series", "series")}`;
    setText(this.count, matching > MOST_ROWS ? `${text}: search to see those after ${format.count(MOST_ROWS)}` : text);
    this.scroller.hidden = !matching;
    show(this.message, matching ? null : this.#empty(total));
    this.#render();
    if (!this.#returned || !matching) return;
    this.#returned = false;
    if ([document.body, document.getElementById("main")].includes(document.activeElement)) this.#focus(this.#active);
  }

  #empty(total) {
    const reading = this.overview()?.reading;
    if (!total && reading && !reading.caught_up) return empty("The history is being read.", "Series are shown as they are found.");
    if (total) return empty(`No series has “${this.#state.q ?? ""}” in its name.`, h("button", { type: "button", class: "choice", on: { click: () => { this.search.value = ""; change({ q: null }); } } }, "Show all series"));
    const topic = this.overview()?.topic ?? "TOPIC";
    return empty("No forecasts yet.", "Start a service on the topic: ", command(`tidecast serve --topic ${topic} --model NAME@champion`));
  }

  #controls() {
    const { sort = "skill", desc, since } = this.#state, down = Boolean(desc) !== (SORTS[sort] ?? SORTS.skill)[1];
    const choice = (text, value) => h("button", { type: "button", class: "choice", "aria-pressed": String((since ?? null) === value), on: { click: () => change({ since: value }) } }, text);
    refill(this.since, PERIODS.map(([text]) => choice(text, text)), choice("all", null));
    refill(this.head, HEADINGS.map(({ name, sort: by, num, term }) => {
      const chosen = by && by === sort;
      return h("th", { scope: "col", class: num ? "num" : null, "aria-sort": chosen ? (down ? "descending" : "ascending") : null },
        by ? h("button", { type: "button", class: `sort${chosen ? " chosen" : ""}`, "data-term": term, on: { click: () => this.#sortBy(by) } }, h("span", {}, name), h("span", { "aria-hidden": "true" }, chosen ? (down ? " ↓" : " ↑") : "")) : name);
    }));
  }

  #sortBy(by) {
    const { sort = "skill", desc } = read();
    change(by === sort ? { desc: desc ? null : 1, row: null } : { sort: by, desc: null, row: null });
  }

  #offset() {
    return Math.max(0, Math.floor((this.#first - 15) / 25) * 25);
  }

  #inSight() {
    const first = Math.floor(this.scroller.scrollTop / ROW_HEIGHT());
    return [first, Math.min(this.#matching, first + Math.ceil(this.scroller.clientHeight / ROW_HEIGHT()) + 2)];
  }

  #holds() {
    const [first, last] = this.#inSight();
    for (let at = first; at < last; at++) if (!this.#rows.has(at)) return false;
    return true;
  }

  #scrolled() {
    this.#render();
    if (!this.#holds()) this.load();
    if (this.live !== this.#offset()) {
      this.live = this.#offset();
      this.follow();
    }
  }

  #render() {
    const [first, last] = this.#inSight(), height = ROW_HEIGHT();
    this.#first = first;
    while (this.#pool.length < last - first) this.#pool.push(new FleetRow());
    const { q, sort, desc, since } = this.#state, place = { q, sort, desc, since };
    const shown = this.#pool.slice(0, Math.max(0, last - first));
    const skills = shown.map((_, at) => Math.abs(this.#rows.get(first + at)?.skill ?? 0)), most = Math.min(1, Math.max(0.05, ...skills));
    shown.forEach((row, at) => row.show(this.#rows.get(first + at), first + at, place, this.#targets.size > 1, most));
    const wanted = shown.map((row) => row.element);
    const focused = document.activeElement;
    if (wanted.length !== this.body.children.length - 2) this.body.replaceChildren(this.before, ...wanted, this.after);
    this.before.firstChild.style.height = `${first * height}px`;
    this.after.firstChild.style.height = `${Math.max(0, this.#matching - last) * height}px`;
    if (this.body.contains(focused) && focused !== document.activeElement) focused.focus({ preventScroll: true });
    this.body.parentElement.setAttribute("aria-rowcount", String(this.#matching + 1));
  }

  #searchKey(event) {
    if (event.key === "ArrowDown" || event.key === "Enter") {
      event.preventDefault();
      this.#focus(0);
    } else if (event.key === "Escape") {
      this.search.value = "";
      change({ q: null }, { replace: true });
    }
  }

  #key(event) {
    const move = { ArrowDown: 1, ArrowUp: -1, PageDown: 15, PageUp: -15, Home: -Infinity, End: Infinity }[event.key];
    if (!move || event.target.closest("thead")) return;
    event.preventDefault();
    const current = event.target.closest("tr")?.ariaRowIndex;
    this.#focus((current ? Number(current) - 2 : this.#first - 1) + move);
  }

  /** Where the arrows begin: the first row in sight. */
  firstRow() {
    this.#focus(Math.ceil(this.scroller.scrollTop / ROW_HEIGHT()));
  }

  #focus(wanted) {
    const at = Math.max(0, Math.min(this.#matching - 1, wanted)), height = ROW_HEIGHT(), { scroller } = this;
    const head = this.head.offsetHeight, room = scroller.clientHeight - head;
    if (at * height < scroller.scrollTop) scroller.scrollTop = at * height;
    if ((at + 1) * height > scroller.scrollTop + room) scroller.scrollTop = (at + 1) * height - room;
    this.#render();
    this.#pool[at - this.#first]?.link.focus({ preventScroll: true });
  }

  destroy() {
    this.alerts.destroy();
    this.#requests.cancel();
    this.follow.cancel();
    this.resize.disconnect();
    this.#stopTheme();
  }
}

