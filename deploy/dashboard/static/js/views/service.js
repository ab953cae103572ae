// The service: whether anything is stuck, how fast it is, and what it could not use.

import { Latest } from "../api.js";
import { h, refill, setText, show } from "../dom.js";
import { change } from "../state.js";
import { term } from "../tips.js";
import { Lines } from "../charts/lines.js";
import * as format from "../format.js";
import { dataTable, fact, failure, panel } from "./parts.js";
import { DeadLetters } from "./dead-letters.js";

const RATE_LINES = [{ name: "records", colour: "actual", mark: "line-actual" }, { name: "forecasts", colour: "forecast", mark: "line-forecast" }];
const LATENCY_LINES = [{ name: "half within", colour: "actual", mark: "line-actual" }, { name: "99 % within", colour: "line-strong", mark: "line-older-3" }];

export class ServiceView {
  #requests = new Latest();
  #charts;

  constructor() {
    this.facts = h("dl", { class: "facts" });
    this.latency = h("p", { class: "fine table-note" });
    this.sentence = h("p", { class: "headline", role: "status" });
    this.more = h("p", { class: "headline-more" });
    this.top = h("section", { class: "panel headline-panel", "aria-label": "Is anything stuck?" }, h("h1", { class: "question" }, "Is anything stuck?"), this.sentence, this.more, this.facts, this.latency);
    this.#charts = [
      new Lines({ label: "Throughput, a second", title: "Throughput", lines: RATE_LINES, write: format.rate }),
      new Lines({ label: "Lag, in records", title: term("lag"), lines: [{ name: "records not forecast yet", colour: "actual", mark: "line-actual" }], write: format.count }),
      new Lines({ label: "Latency", title: "Latency", lines: LATENCY_LINES, write: format.duration, axis: { unit: " ms" } }),
    ];
    this.letters = new DeadLetters((reason) => change({ reason }));
    this.checkpoints = h("div", {});
    this.members = h("div", {});
    this.topics = h("div", {});
    this.message = h("div", {});
    this.parts = h("div", { class: "stack" }, this.top, panel("The last hour", h("div", { class: "figures" }, this.#charts.map(({ element }) => element))),
      this.letters.element, h("div", { class: "columns" }, panel("Partitions and checkpoints", this.checkpoints), h("div", {}, panel("Members", this.members), panel("Topics", this.topics))));
    this.element = h("div", { class: "view" }, this.message, this.parts);
  }

  update(state) {
    if (this.reason !== state.reason || !this.answer) this.letters.load(state.reason);
    this.reason = state.reason;
    if (!this.answer) return this.load();
  }

  async load() {
    const answer = await this.#requests.get("service").catch((error) => ({ error }));
    if (answer === undefined) return;
    this.parts.hidden = Boolean(answer.error);
    show(this.message, answer.error ? failure(answer.error) : null);
    if (!answer.error) this.#show(answer);
  }

  onEvent(name, event) {
    if (name !== "service") return;
    this.parts.hidden = false;
    show(this.message);
    this.#show(event);
  }

  onZone() {
    if (this.answer) this.#show(this.answer);
  }

  #show(answer) {
    const before = this.answer?.dead_letters.total;
    this.answer = answer;
    this.#showHealth(answer);
    const { throughput, lag, latency, history, dead_letters: letters } = answer;
    refill(this.facts,
      fact(term("lag"), lag.total === null ? format.NONE : format.counted(lag.total, "record"), waiting(lag.total, throughput)),
      fact("Records", format.rate(throughput.records_s), throughput.over_s ? `over ${format.duration(throughput.over_s * 1000)}` : ""),
      fact("Forecasts", format.rate(throughput.forecasts_s)),
      fact("Latency, half within", format.duration(latency.p50_ms), latency.p99_ms === null ? "" : `99 % within ${format.duration(latency.p99_ms)}`),
      fact("Dead letters", format.count(letters.total)));
    setText(this.latency, latency.count ? `Latency is ${latency.what}, of ${format.counted(latency.count, "forecast")}.` : "");
    const { ts } = history;
    this.#charts[0].setData([ts, history.records_s, history.forecasts_s]);
    this.#charts[1].setData([ts, history.lag]);
    this.#charts[2].setData([ts, history.latency_p50_ms, history.latency_p99_ms]);
    this.letters.show(letters, this.reason);
    if (before !== undefined && before !== letters.total) this.letters.load(this.reason);
    this.#showTables(answer);
  }

  #showHealth({ stuck, lag, throughput, members, dead_letters: letters }) {
    const idle = !throughput.records_s && lag.total === 0;
    setText(this.sentence, stuck ?? (idle ? "Nothing is stuck: all records are forecast, and none come in." : "Nothing is stuck."));
    this.sentence.classList.toggle("bad-text", Boolean(stuck));
    const parts = [
      lag.total === null ? "the group's lag is not known" : lag.total ? `${format.counted(lag.total, "record")} ${lag.total === 1 ? "waits" : "wait"}` : "no record waits",
      members === null ? "the group's members are not known" : members.length ? `${format.counted(members.length, "member")} in the group` : "the group has no member: the service is not running",
      letters.total ? `${format.counted(letters.total, "dead letter")} kept` : "no dead letters",
    ];
    setText(this.more, `${parts.join(", ")}.`);
  }

  #showTables({ checkpoints, lag, members, topics, partitions }) {
    const byPartition = new Map(checkpoints.map((each) => [String(each.partition), each]));
    const numbers = [...new Set([...Object.keys(lag.by_partition), ...byPartition.keys()])].sort((a, b) => a - b);
    show(this.checkpoints,
      numbers.length ? dataTable("Partitions", [{ name: "partition" }, { name: term("lag", "lag"), num: true }, { name: "checkpoint", num: true }, { name: "at offset", num: true }],
        numbers.map((number) => {
          const { age_s: age = null, offset = null } = byPartition.get(number) ?? {};
          return [number, format.count(lag.by_partition[number]), age === null ? format.NONE : `${format.duration(age * 1000)} ago`, format.count(offset)];
        })) : h("p", { class: "fine" }, `No checkpoint yet of ${format.counted(partitions ?? 0, "partition")}: one is written every 30 s while events come in.`));
    show(this.members, members?.length ? dataTable("Members", [{ name: "instance" }, { name: "host" }], members.map(({ name, host }) => [name, host ?? format.NONE]))
      : h("p", { class: "fine" }, members === null ? "Not known: this log does not tell, or no group is shown (--group NAME)." : "None: the service is not running."));
    show(this.topics, dataTable("Topics", [{ name: "topic" }, { name: "holds" }, { name: "records", num: true }],
      topics.map(({ name, kind, records, exists, refused }) => [name, kind.replaceAll("_", " "), refused ?? (exists ? format.count(records) : "not there yet")])));
  }

  destroy() {
    this.#requests.cancel();
    this.letters.destroy();
    for (const chart of this.#charts) chart.destroy();
  }
}

/** How long what waits takes at the present rate. */
function waiting(records, { records_s: rate }) {
  if (!records || !rate) return "";
  return `${format.duration((records / rate) * 1000)} of work`;
}

