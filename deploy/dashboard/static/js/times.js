// Times in the zone that the reader chose: the browser's own, or UTC.

import { NONE } from "./format.js";

const KEY = "tidecast.zone";
const LOCAL = Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";
const listeners = new Set();
const formats = new Map();
let utc = stored() === "utc";

function stored() {
  try {
    return localStorage.getItem(KEY);
  } catch {
    return null;
  }
}

/** The zone's name, as the axes say it. */
export function zone() {
  return utc ? "UTC" : LOCAL;
}

export function zoneLabel() {
  return utc || LOCAL === "UTC" ? "UTC" : `${LOCAL.replaceAll("_", " ")} time`;
}

export function onZone(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

export function toggleZone() {
  utc = !utc;
  formats.clear();
  try {
    localStorage.setItem(KEY, utc ? "utc" : "local");
  } catch { /* storage is switched off: for this visit only */ }
  for (const listener of listeners) listener();
}

function parts(ts, options) {
  const key = JSON.stringify(options);
  if (!formats.has(key)) formats.set(key, new Intl.DateTimeFormat("en-GB", { ...options, timeZone: zone(), hourCycle: "h23" }));
  return formats.get(key).format(ts);
}

const CLOCK = { hour: "2-digit", minute: "2-digit" };
const DAY = { day: "numeric", month: "short" };

export function clock(ts) {
  return parts(ts, CLOCK);
}

export function clockSeconds(ts) {
  return parts(ts, { ...CLOCK, second: "2-digit" });
}

export function day(ts) {
  return parts(ts, isThisYear(ts) ? DAY : { ...DAY, year: "numeric" });
}

export function dayName(ts) {
  return parts(ts, DAY);
}

export function monthName(ts) {
  return parts(ts, { month: "short" });
}

export function year(ts) {
  return parts(ts, { year: "numeric" });
}

function isThisYear(ts) {
  return parts(ts, { year: "numeric" }) === parts(Date.now(), { year: "numeric" });
}

/** A time in full: its year where it is another one, its seconds where it has some. */
export function time(ts) {
  if (ts === null || ts === undefined) return NONE;
  return `${day(ts)}, ${ts % 60_000 ? clockSeconds(ts) : clock(ts)}`;
}

/** A date whose calendar fields are those of the chosen zone, as uPlot's axes want it. */
export function zonedDate(ts) {
  const date = new Date(ts);
  return utc ? new Date(ts + date.getTimezoneOffset() * 60_000) : date;
}
