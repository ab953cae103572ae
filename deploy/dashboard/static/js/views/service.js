// The service: whether anything is stuck, how fast it is, and what it could not use.

import { Latest } from "../api.js";
import { h, refill, setText, show } from "../dom.js";
import { change } from "../state.js";
import { term } from "../tips.js";
import { Lines } from "../charts/lines.js";
import { age } from "../ages.js";
import * as format from "../format.js";
import * as times from "../times.js";
import { dataTable, fact, fill, panel } from "./parts.js";
import { latencyFact, ServiceHealth } from "./service-health.js";
import { DeadLetters } from "./dead-letters.js";

/** Points of history, five seconds each, over which rates are averaged. */
const SMOOTHED = 3;
const HOUR_MS = 3_600_000;
const RATE_LINES = [{ name: "records", colour: "actual", mark: "line-actual" }, { name: "forecasts", colour: "forecast", mark: "line-forecast" }];
const LATENCY_LINES = [{ name: "median", colour: "actual", mark: "line-actual" }, { name: "99 % within", colour: "line-strong", mark: "line-older-3" }];

export class ServiceView {
  #requests = new Latest();
  #charts;

  constructor() {
    this.facts = h("dl", { class: "facts" });
    this.latency = h("p", { class: "fine table-note" });
    this.health = new ServiceHealth(this.facts, this.latency);
    this.measured = h("span", {}, "Measured");
    this.#charts = [
      new Lines({ label: "Throughput, a second", title: ["Throughput", h("span", { class: "fine" }, "over 15 s")], lines: RATE_LINES, write: format.rate }),
      new Lines({ label: "Lag, in records", title: term("lag"), lines: [{ name: "records not forecast yet", colour: "actual", mark: "line-actual" }], write: format.count }),
      new Lines({ label: "Latency", title: term("latency"), lines: LATENCY_LINES, write: format.duration, log: true }),
    ];
    this.letters = new DeadLetters((reason) => change({ reason }));
    this.checkpoints = h("div", {});
    this.members = h("div", {});
    this.topics = h("div", {});
    this.message = h("div", {});
    this.parts = h("div", { class: "stack" }, this.health.element, panel(this.measured, h("div", { class: "figures" }, this.#charts.map(({ element }) => element))),
      this.letters.element, h("div", { class: "columns" }, panel(["Partitions and ", term("checkpoint", "checkpoints")], this.checkpoints), h("div", {}, panel(term("member", "Members"), this.members), panel("Topics", this.topics))));
    this.parts.hidden = true;
    this.element = h("div", { class: "view long" }, this.message, this.parts);
  }

  update(state) {
    if (this.reason !== state.reason || !this.answer) this.letters.load(state.reason);
    this.reason = state.reason;
    if (!this.answer) return this.load();
  }

  load() {
    return fill(this, this.#requests.get("service"), (answer) => this.#take(answer));
  }

  onEvent(name, event) {
    if (name === "service") this.#take(event);
  }

  #take(answer) {
    this.parts.hidden = false;
    show(this.message);
    this.#show(answer);
  }

  onZone() {
    if (this.answer) this.#show(this.answer);
  }

  #show(answer) {
    const before = this.answer?.dead_letters.total;
    this.answer = answer;
    this.health.show(answer);
    const { throughput, lag, latency, history, dead_letters: letters } = answer;
    refill(this.facts,
      fact(term("lag"), lag.total === null ? format.NONE : format.counted(lag.total, "record"), waiting(lag.total, throughput)),
      fact("Records", format.rate(throughput.records_s), throughput.over_s ? `over ${format.duration(throughput.over_s * 1000)}` : ""),
      fact("Forecasts", format.rate(throughput.forecasts_s)),
      fact(term("latency", "Latency, median"), ...latencyFact(latency)),
      fact(term("letter", "Dead letters"), format.count(letters.total)));
    setText(this.latency, latency.count ? `Latency is ${latency.what}, of ${format.counted(latency.count, "forecast")}.` : "");
    const { ts } = history;
    setText(this.measured, ts.length && ts.at(-1) - ts[0] < HOUR_MS - 60_000 ? `Measured since ${times.time(ts[0])}` : "The last hour");
    this.#charts[0].setData([ts, smoothed(history.records_s), smoothed(history.forecasts_s)]);
    this.#charts[1].setData([ts, history.lag]);
    this.#charts[2].setData([ts, positive(history.latency_p50_ms), positive(history.latency_p99_ms)]);
    this.letters.show(letters, this.reason);
    if (before !== undefined && before !== letters.total) this.letters.load(this.reason);
    this.#showTables(answer);
  }

  #showTables({ checkpoints, lag, members, topics, partitions }) {
    const byPartition = new Map(checkpoints.map((each) => [String(each.partition), each]));
    const numbers = [...new Set([...Object.keys(lag.by_partition), ...byPartition.keys()])].sort((a, b) => a - b);
    show(this.checkpoints,
      numbers.length ? dataTable("Partitions", [{ name: "partition" }, { name: term("lag", "lag"), num: true }, { name: "checkpoint", num: true }, { name: "at offset", num: true }],
        numbers.map((number) => {
          const { ts = null, offset = null } = byPartition.get(number) ?? {};
          return [number, format.count(lag.by_partition[number]), ts === null ? format.NONE : age(ts), format.count(offset)];
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

/** Means over the last few points: records are counted where reading stopped, which saws. */
function smoothed(column) {
  return column.map((_, at) => {
    const known = column.slice(Math.max(0, at - SMOOTHED + 1), at + 1).filter((value) => value !== null);
    return known.length ? known.reduce((sum, value) => sum + value, 0) / known.length : null;
  });
}

/** What a logarithmic axis can show. */
function positive(column) {
  return column.map((value) => (value > 0 ? value : null));
}

/** How long what waits takes at the present rate. */
function waiting(records, { records_s: rate }) {
  if (!records || !rate) return "";
  return `${format.duration((records / rate) * 1000)} of work`;
}

