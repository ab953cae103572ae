// The page: which view is open, what every view shares, and the keys.

import { get } from "./api.js";
import { announce, h, isTyping, refill, setText, show } from "./dom.js";
import { go, hrefOf, onChange, read } from "./state.js";
import { Live } from "./live.js";
import { isDark, onTheme, toggleTheme } from "./theme.js";
import { onZone, toggleZone, zone, zoneLabel } from "./times.js";
import { startTips } from "./tips.js";
import { startAges } from "./ages.js";
import { copyLink } from "./share.js";
import { showHelp } from "./help.js";
import * as format from "./format.js";
import { failure } from "./views/parts.js";

const VIEWS = {
  fleet: ["Fleet", () => import("./views/fleet.js").then((module) => module.FleetView)],
  series: ["Series", () => import("./views/series.js").then((module) => module.SeriesView)],
  texts: ["Texts", () => import("./views/texts.js").then((module) => module.TextsView)],
  models: ["Models", () => import("./views/models.js").then((module) => module.ModelsView)],
  service: ["Service", () => import("./views/service.js").then((module) => module.ServiceView)],
};
const STATES = { connecting: "Connecting", live: "Live", reconnecting: "Reconnecting" };
const at = (id) => document.getElementById(id);

let overview = null, open = null, openName = "", opening = "", connection = "connecting", logError = null, caughtUp = false, saidProblem = "", routed = false;

const live = new Live(
  (state) => { connection = state; sayConnection(); },
  (name, event) => {
    if (name === "overview") return showOverview(event);
    if (name === "status") { logError = event.log_error; return sayConnection(); }
    return open?.onEvent?.(name, event);
  },
  () => { open?.load(); refreshOverview(); },
);

/** The views of this log's task, in their order. */
function names() {
  return overview?.task === "labels" ? ["texts", "models", "service"] : ["fleet", "series", "models", "service"];
}

async function route(state) {
  const name = names().includes(state.view) ? state.view : names()[0];
  opening = name;
  if (name !== openName) {
    const View = await VIEWS[name][1]();
    if (opening !== name) return;
    open?.destroy?.();
    open = new View({ follow, overview: () => overview });
    openName = name;
    show(at("main"), open.element);
    at("main").setAttribute("aria-label", VIEWS[name][0]);
    scrollTo(0, 0);
    if (routed && document.activeElement === document.body) at("main").focus({ preventScroll: true });
    routed = true;
  }
  showTabs();
  sayProblem();
  if (name !== "series") document.title = `${VIEWS[name][0]} · Tidecast`;
  open.update(read());
  follow();
}

/** Ask the stream for what the open view now shows. */
function follow() {
  live.follow(open?.stream?.() ?? { view: openName });
}

function showTabs() {
  const { series, target, q, sort, desc, since, row } = read();
  const own = { fleet: { q, sort, desc, since, row }, series: { series, target, q, sort, desc, since, row } };
  refill(at("tabs"), names().map((name, place) =>
    h("a", { href: hrefOf({ view: name, ...own[name] }), "aria-current": name === openName ? "page" : null, title: `${VIEWS[name][0]} (${place + 1})` }, VIEWS[name][0])));
}

function showOverview(answer) {
  overview = answer;
  logError = answer.log_error;
  sayConnection();
  sayProblem();
  const { reading, topic, output, log, series, version, event_time_offset_s: offset } = answer;
  const share = reading?.total ? reading.done / reading.total : 1;
  show(at("foot"),
    h("span", {}, `${topic} → ${output}`), h("span", {}, log),
    answer.task === "labels" ? null : h("span", {}, format.counted(series, "series", "series")),
    h("span", {}, reading?.caught_up ? "past read" : `reading the past: ${format.percent(Math.min(share, 1), 0)}`),
    Math.abs(offset) > 60 ? h("span", {}, `event times run ${format.duration(Math.abs(offset) * 1000)} ${offset > 0 ? "ahead of" : "behind"} the clock`) : null,
    h("span", {}, `Tidecast ${version}`));
  open?.onOverview?.(answer);
  if (!caughtUp && reading?.caught_up && open) open.onCaughtUp?.();
  caughtUp = Boolean(reading?.caught_up);
}

async function refreshOverview() {
  try {
    showOverview(await get("overview"));
  } catch (error) {
    if (!overview) show(at("main"), failure(error));
    return false;
  }
  return true;
}

function sayConnection() {
  const shown = connection === "live" && logError ? "broken" : connection;
  at("connection").className = `link-state ${shown}`;
  setText(at("connection"), shown === "broken" ? "Broker not reachable" : STATES[connection]);
  at("connection").title = shown === "broken" ? logError : "";
  at("notice").hidden = !logError;
  setText(at("notice"), logError ? `The log is not reachable (${logError}). What is here is what was last read; it goes on by itself.` : "");
}

/** What is wrong with the service, in every view, with the way to where more is said. */
function sayProblem() {
  const { problem = null } = overview ?? {};
  at("problem").hidden = !problem || logError !== null || problem.view === (openName || read().view);
  const view = problem?.view ?? null, key = JSON.stringify([problem, view]);
  if (key !== saidProblem) show(at("problem"), problem?.sentence ?? "", view ? h("a", { href: hrefOf({ view }) }, `Show ${VIEWS[view]?.[0] ?? view}`) : null);
  saidProblem = key;
}

function sayTheme() {
  setText(at("theme"), isDark() ? "☀" : "☾");
  at("theme").setAttribute("aria-label", isDark() ? "Light colours" : "Dark colours");
  at("theme").title = `${isDark() ? "Light" : "Dark"} colours (t)`;
}

function sayZone() {
  setText(at("zone"), zone() === "UTC" ? "UTC" : zone().split("/").at(-1).replaceAll("_", " "));
  at("zone").setAttribute("aria-label", `Times are ${zoneLabel()}: change`);
  at("zone").title = `Times are ${zoneLabel()}: switch between this computer's zone and UTC (z)`;
}

const KEYS = {
  "?": () => showHelp(),
  t: toggleTheme,
  z: toggleZone,
  "/": () => {
    const field = document.querySelector("main [data-search]");
    if (field) field.focus();
    else go({ view: "fleet" });
  },
};

addEventListener("keydown", (event) => {
  if (isTyping(event) || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  const view = names()[Number(event.key) - 1];
  const down = event.key === "ArrowDown" && document.activeElement === document.body && open?.firstRow;
  const action = KEYS[event.key] ?? (view ? () => at("tabs").children[Number(event.key) - 1].click() : down ? () => open.firstRow() : null);
  if (!action) return;
  event.preventDefault();
  action();
});

/** The address of what is in sight: where a point is picked in a live chart, with the time that the chart shows. */
function shared() {
  const address = new URL(location.href);
  for (const [name, value] of Object.entries(open?.shared?.() ?? {})) address.searchParams.set(name, value);
  return address.href;
}

async function start() {
  at("theme").addEventListener("click", toggleTheme);
  at("link").addEventListener("click", () => copyLink(at("link"), shared()));
  at("zone").addEventListener("click", toggleZone);
  at("help").addEventListener("click", showHelp);
  onTheme(sayTheme);
  onZone(() => { sayZone(); open?.onZone?.(); announce(`Times are ${zoneLabel()}`); });
  sayTheme();
  sayZone();
  sayConnection();
  startTips();
  startAges();
  onChange(route);
  while (!(await refreshOverview())) await new Promise((resolve) => setTimeout(resolve, 2000));
  await route(read());
}

start();
