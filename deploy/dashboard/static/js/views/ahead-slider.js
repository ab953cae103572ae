// How many steps ahead the past's forecasts are that lie over the chart, and how they fared.

import { h, setText } from "../dom.js";
import { meaning } from "../terms.js";
import * as format from "../format.js";

export class AheadSlider {
  constructor(onChange) {
    this.input = h("input", { type: "range", min: 1, max: 1, step: 1, value: 1, id: "k-slider", on: { input: () => this.#changed(onChange) } });
    this.text = h("output", { for: "k-slider" });
    this.newest = h("span", { class: "fine" });
    this.result = h("p", { class: "ahead-result" });
    this.element = h("div", { class: "ahead" },
      h("label", { for: "k-slider", title: meaning("ahead") }, "Past forecasts, made"), this.input, this.text, this.newest);
    this.step = 1;
  }

  #changed(onChange) {
    this.#say();
    onChange(this.input.value === "1" ? null : this.input.value);
  }

  show(k, horizon, step) {
    this.step = step;
    Object.assign(this.input, { max: horizon, disabled: horizon <= 1 });
    this.input.value = k;
    this.#say();
  }

  #say() {
    const k = Number(this.input.value), lead = this.step > 1 ? ` (${format.duration(k * this.step)})` : "";
    const text = `${format.counted(k, "step")}${lead} ahead`;
    setText(this.text, text);
    this.input.setAttribute("aria-valuetext", text);
    this.#sayNewest(k);
  }

  /** The newest forecast, of which that many steps ahead is said. */
  setForecast(forecast) {
    this.forecast = forecast;
    this.#sayNewest(Number(this.input.value));
  }

  #sayNewest(k) {
    const at = k - 1, { forecast, lower, upper } = this.forecast ?? {};
    const bounds = typeof lower?.[at] === "number" ? `, ${format.number(lower[at])} to ${format.number(upper[at])}` : "";
    setText(this.newest, typeof forecast?.[at] === "number" ? `now: ${format.number(forecast[at])}${bounds}` : "");
  }

  fared(found, asked) {
    if (!found) return setText(this.result, "So long a time is drawn by its highest and lowest values: zoom in to see how forecasts fared.");
    const { count, mae, coverage } = found;
    const inside = coverage === null ? `, ${format.counted(count, "value")}` : `, ${format.percent(coverage)} of ${format.counted(count, "value")} inside${asked ? ` (asked ${format.percent(asked, 0)})` : ""}`;
    return setText(this.result, count ? `In the chart: MAE ${format.number(mae)}${inside}` : "None in the chart");
  }
}
