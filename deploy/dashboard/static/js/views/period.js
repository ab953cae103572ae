// The period that skill is of: the fleet's choice, which a series' page follows.

import { get } from "../api.js";

export const PERIODS = [["1 h", 3_600_000], ["24 h", 86_400_000], ["7 d", 604_800_000]];
const KEPT_MS = 30_000;
let newest = null, asked = 0;

/**
 * The time since when skill is counted, null for all there is: from the newest value of the fleet, which on a replay is
 * not today.
 */
export async function since(name) {
  const span = PERIODS.find(([each]) => each === name)?.[1];
  if (!span) return null;
  if (newest === null || Date.now() - asked > KEPT_MS) {
    const answer = await get("fleet", { sort: "newest", desc: 1, limit: 1 }).catch(() => null);
    newest = answer?.rows[0]?.ts ?? newest ?? Date.now();
    asked = Date.now();
  }
  return newest - span;
}

/** "of the last 24 h", "of all that is kept". */
export function periodWords(name) {
  return PERIODS.some(([each]) => each === name) ? `of the last ${name}` : "of all that is kept";
}
