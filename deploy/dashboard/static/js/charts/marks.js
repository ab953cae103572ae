// What is drawn over a chart of a series: anomalies, alerts, model swaps, the last value, the picked origin.

import { colour } from "../theme.js";

const TOP = 6;

/** A uPlot plugin; `marks()` gives {anomalies: [[ts, value]], alerts, swaps, last, pick}. */
export function marksPlugin(marks) {
  return { hooks: { draw: (chart) => draw(chart, marks()) } };
}

function draw(chart, { anomalies = [], alerts = [], swaps = [], last = null, pick = null }) {
  const { ctx, bbox } = chart, ratio = devicePixelRatio || 1;
  const place = { x: (ts) => chart.valToPos(ts, "x", true), y: (value) => chart.valToPos(value, "y", true) };
  const seen = (ts) => ts >= chart.scales.x.min && ts <= chart.scales.x.max;
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  for (const alert of alerts) drawAlert(ctx, bbox, place, alert, ratio, last);
  if (last !== null && seen(last)) line(ctx, bbox, place.x(last), colour("line-strong"), ratio, []);
  for (const swap of swaps) if (seen(swap.ts)) drawSwap(ctx, bbox, place.x(swap.ts), swap, ratio);
  if (pick !== null && seen(pick)) line(ctx, bbox, place.x(pick), colour("pick"), ratio, [4, 3], 1.5);
  ctx.restore();
  for (const [ts, value] of anomalies) if (seen(ts)) diamond(ctx, place.x(ts), place.y(value), 4.5 * ratio, ratio);
}

function line(ctx, bbox, x, stroke, ratio, dash, width = 1) {
  ctx.strokeStyle = stroke;
  ctx.lineWidth = width * ratio;
  ctx.setLineDash(dash.map((each) => each * ratio));
  ctx.beginPath();
  ctx.moveTo(Math.round(x) + 0.5, bbox.top);
  ctx.lineTo(Math.round(x) + 0.5, bbox.top + bbox.height);
  ctx.stroke();
  ctx.setLineDash([]);
}

function drawAlert(ctx, bbox, place, alert, ratio, last) {
  const left = place.x(alert.since), right = place.x(alert.until ?? last ?? alert.ts);
  if (right < bbox.left || left > bbox.left + bbox.width) return;
  ctx.fillStyle = colour("alert-wash");
  ctx.fillRect(left, bbox.top, Math.max(2 * ratio, right - left), bbox.height);
  const x = Math.max(left, bbox.left + 6 * ratio), size = 5 * ratio, top = bbox.top + TOP * ratio - 4 * ratio;
  ctx.fillStyle = colour("alert");
  ctx.beginPath();
  ctx.moveTo(x - size, top);
  ctx.lineTo(x + size, top);
  ctx.lineTo(x, top + 1.7 * size);
  ctx.fill();
}

function drawSwap(ctx, bbox, x, swap, ratio) {
  line(ctx, bbox, x, colour("champion"), ratio, [2, 3], 1.5);
  ctx.font = `${11 * ratio}px Inter, system-ui, sans-serif`;
  ctx.fillStyle = colour("champion");
  const text = `▸ ${swap.to}`, room = bbox.left + bbox.width - x;
  const fits = ctx.measureText(text).width + 8 * ratio < room;
  ctx.textAlign = fits ? "left" : "right";
  ctx.textBaseline = "bottom";
  ctx.fillText(text, x + (fits ? 5 : -5) * ratio, bbox.top + bbox.height - 5 * ratio);
}

function diamond(ctx, x, y, size, ratio) {
  ctx.beginPath();
  ctx.moveTo(x, y - size);
  ctx.lineTo(x + size, y);
  ctx.lineTo(x, y + size);
  ctx.lineTo(x - size, y);
  ctx.closePath();
  ctx.fillStyle = colour("panel");
  ctx.strokeStyle = colour("anomaly");
  ctx.lineWidth = 2 * ratio;
  ctx.fill();
  ctx.stroke();
}
