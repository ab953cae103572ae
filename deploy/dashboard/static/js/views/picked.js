// A picked point: the forecast made there against what came, and all forecasts that were made for it.

import { Latest } from "../api.js";
import { h, show } from "../dom.js";
import { term } from "../tips.js";
import * as format from "../format.js";
import * as times from "../times.js";
import { command, dataTable, fact, failure, panel } from "./parts.js";

export class Picked {
  #origin = new Latest();
  #target = new Latest();

  constructor(onClose) {
    this.onClose = onClose;
    this.element = h("div", { class: "columns", hidden: true });
  }

  /** Load what belongs to a point; the forecast made there, null where none is kept or nothing is picked. */
  async load(place, data) {
    if (!place.ts || !data) {
      this.element.hidden = true;
      this.#origin.cancel();
      this.#target.cancel();
      return null;
    }
    const [origin, target] = await Promise.all([
      this.#origin.get("origin", place).catch((failed) => ({ failed })),
      this.#target.get("target", place).catch((failed) => ({ failed })),
    ]);
    if (origin === undefined || target === undefined) return undefined;
    this.element.hidden = false;
    show(this.element, this.#made(origin), this.#madeFor(target, data));
    return origin.failed ? null : origin;
  }

  #made(origin) {
    const close = h("button", { type: "button", class: "quiet close", "aria-label": "Unpick the point", title: "Unpick the point (Esc)", on: { click: this.onClose } }, "×");
    if (origin.failed) return panel("Forecast from here", close, failure(origin.failed));
    const rows = origin.times.map((ts, at) => row(at + 1, ts, origin, at));
    const known = rows.filter(({ error }) => error !== null), bounded = known.filter(({ inside }) => inside !== null);
    const mae = known.length ? known.reduce((sum, { error }) => sum + Math.abs(error), 0) / known.length : null;
    return panel(`Forecast from ${times.time(origin.ts)}`, close,
      h("dl", { class: "facts small" },
        fact("Off by, on average", format.number(mae), known.length ? `over ${known.length} of ${rows.length} steps` : "nothing came yet"),
        fact("Inside", bounded.length ? `${bounded.filter(({ inside }) => inside).length} of ${bounded.length}` : format.NONE, origin.coverage ? `asked ${format.percent(origin.coverage, 0)}` : ""),
        fact("Model", origin.model, `sha256 ${format.digest(origin.sha256)}`)),
      dataTable("The forecast made here, against what came", COLUMNS("step", "for"), cells(rows)),
      origin.explain ? h("p", { class: "fine" }, "Compute it again, ", term("rebuilt", "to the bit"), ": ", command(origin.explain)) : null);
  }

  #madeFor(target) {
    if (target.failed) return panel("Forecasts for this time", failure(target.failed));
    const rows = target.rows.map((each) => ({ ...each, ts: each.made, actual: target.actual })), known = rows.filter(({ error }) => error !== null);
    const said = target.actual === null ? "it has not come yet" : `it was ${format.number(target.actual)}`;
    const closest = known.length ? known.reduce((a, b) => (Math.abs(b.error) < Math.abs(a.error) ? b : a)) : null;
    const inside = known.filter(({ inside: each }) => each !== null);
    return panel(`What was forecast for ${times.time(target.ts)}`,
      h("dl", { class: "facts small" },
        fact("Actual", format.number(target.actual), target.actual === null ? said : ""),
        fact("Forecasts kept", format.count(target.rows.length), closest ? `nearest in error: ${format.counted(closest.k, "step")} ahead` : ""),
        fact(term("coverage", "Inside"), inside.length ? `${inside.filter(({ inside: each }) => each).length} of ${inside.length}` : format.NONE)),
      target.rows.length
        ? dataTable("All forecasts that were made for this time", COLUMNS("ahead", "made at"), cells(rows))
        : h("p", { class: "fine" }, "No forecast for this time is kept."));
  }
}

const COLUMNS = (step, at) => [
  { name: step }, { name: at }, { name: "forecast", num: true }, { name: "actual", num: true }, { name: term("error", "error (actual − forecast)"), num: true }, { name: "inside" }, { name: "interval", num: true },
];

function row(k, ts, origin, at) {
  const [forecast, lower, upper, actual, error] = ["forecast", "lower", "upper", "actual", "error"].map((name) => origin[name]?.[at] ?? null);
  return { k, ts, forecast, lower, upper, actual, error, inside: actual === null || lower === null ? null : actual >= lower && actual <= upper };
}

/** The cells of rows {k, ts, forecast, lower, upper, actual, error, inside}: values share their decimals, so do errors. */
function cells(rows) {
  const values = format.column(rows.flatMap(({ forecast, lower, upper, actual }) => [forecast, lower, upper, actual]));
  const errors = format.column(rows.map(({ error }) => error));
  return rows.map(({ k, ts, lower, error, inside }, at) => {
    const [forecast, low, high, actual] = values.slice(4 * at, 4 * at + 4);
    return [
      String(k), times.time(ts), forecast, actual, `${error > 0 ? "+" : ""}${errors[at]}`,
      inside === null ? format.NONE : h("span", { class: inside ? null : "bad-text" }, inside ? "yes" : "no"), lower === null ? format.NONE : `${low} to ${high}`,
    ];
  });
}
