// Did the last swap help? What the server found, in a sentence with its numbers.

import * as format from "../format.js";
import * as times from "../times.js";

/** Of skills that are compared. */
const DIGITS = 3;
const HEADLINES = { better: "Yes: skill rose.", worse: "No: skill fell.", "no clear difference": "No clear difference.", "too early": "Too early to say." };

/** {headline, more, facts: [[name, value, note]]} of the answer of api/models. */
export function lastSwap({ last_swap: swap = null, swaps, live }) {
  if (!swaps.length && !swap) {
    const only = live.at(-1);
    return {
      headline: "There was no swap yet.",
      more: only ? `${only.model} has forecast all of what is here: skill ${format.skill(only.skill)} over ${format.counted(only.count, "value")}.` : "",
      facts: [],
    };
  }
  const { from, to, ts } = swap ?? swaps.at(-1), what = `${to} took over from ${from} on ${times.time(ts)}, event time.`;
  if (!swap) return { headline: "Too early to say.", more: what, facts: [] };
  return { headline: HEADLINES[swap.verdict] ?? swap.verdict, more: `${what} ${why(swap)}`, facts: facts(swap) };
}

/** Why nothing is said, or what is compared. */
function why({ low = null, why: said = "", before }) {
  if (low === null || !before) return said.replace(/^Too early to say: (.)/, (_, first) => first.toUpperCase());
  return `Compared are ${format.duration(before.to - before.from)} before it with as long after it, series by series; the interval says how much of the difference may be chance.`;
}

function facts({ before, after, difference = null, low = null, high = null, left_out: leftOut = null }) {
  const found = [["Before", before], ["After", after]].filter(([, part]) => part).map(([name, part]) => [
    `${name}, skill`, format.skill(part.skill, DIGITS),
    !part.count ? "nothing is scored yet" : `${format.counted(part.count, "value")}${part.from && part.to ? ` in ${format.duration(part.to - part.from)}` : ""}${typeof part.coverage === "number" ? `, coverage ${format.percent(part.coverage)}` : ""}`,
  ]);
  if (difference !== null) found.push(["Difference", format.skill(difference, DIGITS), low === null ? "" : `90 % interval ${format.skill(low, DIGITS)} to ${format.skill(high, DIGITS)}`]);
  if (leftOut) found.push(["Left out", typeof leftOut === "number" ? format.counted(leftOut, "series", "series") : leftOut, "not scored on both sides, or of a naive forecast without any error"]);
  return found;
}
