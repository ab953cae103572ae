// Did the last swap help? The skill as long before it as after it, in a sentence.

import * as format from "../format.js";
import * as times from "../times.js";

/** Graded values on either side, below which nothing is said. */
const FEWEST = 100;
/** Skills that are no further apart are called the same. */
const SAME = 0.01;

/** {headline, more} of the answer of api/models. */
export function lastSwap({ swaps, skill_over_time: versions, live }) {
  const swap = swaps.at(-1);
  if (!swap) {
    const only = live.at(-1);
    return {
      headline: "There was no swap yet.",
      more: only ? `${only.model} has forecast all of what is here: skill ${format.skill(only.skill)} over ${format.counted(only.count, "value")}.` : "",
    };
  }
  const of = (model) => versions.find((version) => version.model === model);
  const width = bucketWidth(versions); // a bucket may begin before the swap and hold what came after it
  const after = averaged(of(swap.to), swap.ts - width, Infinity), span = after ? Math.max(after.until + width - swap.ts, width) : 0;
  const before = averaged(of(swap.from), swap.ts - span - width, swap.ts) ?? averaged(of(swap.from), -Infinity, swap.ts);
  const what = `${swap.to} took over from ${swap.from} on ${times.time(swap.ts)}.`;
  if (!after || !before || after.count < FEWEST || before.count < FEWEST) {
    return { headline: "Too early to say.", more: `${what} ${format.counted(after?.count ?? 0, "value")} after it and ${format.count(before?.count ?? 0)} before it are graded so far.` };
  }
  const gain = after.skill - before.skill;
  const headline = Math.abs(gain) < SAME ? "It made no difference so far." : gain > 0 ? "Yes: skill rose." : "No: skill fell.";
  const figures = `Skill ${format.skill(before.skill)} before (${format.counted(before.count, "value")}), ${format.skill(after.skill)} after (${format.counted(after.count, "value")})`;
  const covered = before.coverage !== null && after.coverage !== null ? `; coverage ${format.percent(before.coverage)} before, ${format.percent(after.coverage)} after` : "";
  return { headline, more: `${what} ${figures}${covered}. Compared with the naive forecast over the same times, so that harder days do not count against a version.` };
}

/** Means of a version's buckets in [from, until), weighted by what was graded; null if there are none. */
function averaged(version, from, until) {
  if (!version) return null;
  let count = 0, skill = 0, covered = 0, coverage = 0, last = -Infinity;
  version.ts.forEach((ts, at) => {
    const weight = version.count[at];
    if (ts < from || ts >= until || !weight || version.skill[at] === null) return;
    count += weight;
    skill += weight * version.skill[at];
    last = ts;
    if (version.coverage[at] === null) return;
    covered += weight;
    coverage += weight * version.coverage[at];
  });
  return count ? { count, skill: skill / count, coverage: covered ? coverage / covered : null, until: last } : null;
}

function bucketWidth(versions) {
  const starts = [...new Set(versions.flatMap(({ ts }) => ts))].sort((a, b) => a - b);
  return starts.length > 1 ? Math.min(...starts.slice(1).map((ts, at) => ts - starts[at])) : 0;
}
