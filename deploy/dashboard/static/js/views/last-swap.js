// Did the last swap help? What the server found, in a sentence with its numbers.

import * as format from "../format.js";
import * as times from "../times.js";

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
  return { headline: HEADLINES[swap.verdict] ?? swap.verdict, more: [what, swap.why].filter(Boolean).join(" "), facts: facts(swap) };
}

function facts({ before, after, difference = null, low = null, high = null, left_out: leftOut = null }) {
  const found = [["Before", before], ["After", after]].filter(([, part]) => part).map(([name, part]) => [
    `${name}, skill`, format.skill(part.skill),
    `${format.counted(part.count, "value")}${part.from && part.to ? ` in ${format.duration(part.to - part.from)}` : ""}${typeof part.coverage === "number" ? `, coverage ${format.percent(part.coverage)}` : ""}`,
  ]);
  if (difference !== null) found.push(["Difference", format.skill(difference), low === null ? "" : `90 % interval ${format.skill(low)} to ${format.skill(high)}`]);
  if (leftOut) found.push(["Left out", typeof leftOut === "number" ? format.counted(leftOut, "series", "series") : leftOut, "their naive forecast was exact"]);
  return found;
}
