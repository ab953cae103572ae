// Whether the service works, in a sentence; and apart from it, whether its sensors do.

import { age } from "../ages.js";
import { h, refill, setText } from "../dom.js";
import { hrefOf } from "../state.js";
import * as format from "../format.js";

export class ServiceHealth {
  constructor(...parts) {
    this.sentence = h("p", { class: "headline", role: "status" });
    this.others = h("ul", { class: "problems", hidden: true });
    this.more = h("p", { class: "headline-more" });
    this.sensors = h("p", { class: "headline-more" });
    this.element = h("section", { class: "panel headline-panel", "aria-label": "Does the service work?" },
      h("h1", { class: "question" }, "Does the service work?"), this.sentence, this.others, this.more, this.sensors, parts);
  }

  show(answer) {
    const { problems, throughput, lag } = answer, idle = !throughput.records_s && lag.total === 0;
    setText(this.sentence, problems[0]?.sentence ?? (idle ? "The service works: all records are forecast, and none come in." : "The service works."));
    this.sentence.classList.toggle("bad-text", problems.length > 0);
    this.others.hidden = problems.length < 2;
    refill(this.others, problems.slice(1).map(({ sentence }) => h("li", {}, sentence)));
    refill(this.more, `${this.#facts(answer).join(", ")}.`);
    this.#showSensors(answer.open_alerts);
  }

  #facts({ lag, members, dead_letters: letters }) {
    return [
      lag.total === null ? "The group's lag is not known" : lag.total ? `${format.counted(lag.total, "record")} ${lag.total === 1 ? "waits" : "wait"}` : "No record waits",
      members === null ? "the group's members are not known" : members.length ? `${format.counted(members.length, "member")} in the group` : "the group has no member: the service is not running",
      letters.total ? `${format.counted(letters.total, "dead letter")} kept` : "no dead letters",
    ];
  }

  #showSensors(open) {
    this.sensors.hidden = typeof open !== "number";
    if (this.sensors.hidden) return;
    refill(this.sensors, open ? [h("a", { href: hrefOf({ view: "fleet", sort: "alert" }) }, format.counted(open, "sensor alert")), ` ${open === 1 ? "is" : "are"} open.`] : "No sensor alert is open.");
  }
}

/** How long forecasts take, or since when there are none. */
export function latencyFact({ p50_ms: half, p99_ms: most, newest_ts: newest = null }) {
  if (half !== null) return [format.duration(half), most === null ? "" : `99 % within ${format.duration(most)}`];
  return [format.NONE, newest === null ? "no forecast yet" : ["newest forecast ", age(newest)]];
}
