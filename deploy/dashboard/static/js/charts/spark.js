// Spark lines: the newest values of a series, on one small canvas each.

import { colour } from "../theme.js";

/** Draw values (null: a gap) into a canvas of the size it has in CSS pixels. */
export function drawSpark(canvas, values, width, height) {
  const ratio = Math.min(devicePixelRatio || 1, 2);
  if (canvas.width !== width * ratio) Object.assign(canvas, { width: width * ratio, height: height * ratio });
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  const known = values.filter((value) => value !== null);
  if (!known.length) return;
  const low = Math.min(...known), span = Math.max(...known) - low;
  const x = (at) => 2 + (at * (width - 6)) / Math.max(1, values.length - 1);
  const y = (value) => (span ? height - 3 - ((value - low) * (height - 6)) / span : height / 2);
  context.strokeStyle = colour("actual");
  context.lineWidth = 1.25;
  context.lineJoin = "round";
  context.beginPath();
  let drawing = false, last = 0;
  values.forEach((value, at) => {
    if (value === null) return void (drawing = false);
    context[drawing ? "lineTo" : "moveTo"](x(at), y(value));
    drawing = true;
    last = at;
  });
  context.stroke();
  context.fillStyle = colour("forecast");
  context.beginPath();
  context.arc(x(last), y(values[last]), 2, 0, 7);
  context.fill();
}
