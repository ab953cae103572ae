// Zooming and panning: drag selects, Shift and drag (or two fingers, or a sideways wheel) pans, the wheel zooms.

const CLICK_PX = 4;

/** A uPlot plugin. `range()` is what is seen, `limits()` what may be; `set({min, max})` asks for another, `pick(index)`
 * is a click. */
export function panZoom({ range, limits, set, pick }) {
  return { hooks: { ready: (chart) => listen(chart, { range, limits, set, pick }) } };
}

function listen(chart, { range, limits, set, pick }) {
  const over = chart.over;
  let down = null;
  const timeAt = (event) => chart.posToVal(event.clientX - over.getBoundingClientRect().left, "x");
  over.addEventListener("pointerdown", (event) => {
    if (event.button > 1) return;
    down = { x: event.clientX, ...range(), pans: event.shiftKey || event.button === 1 || event.pointerType === "touch" };
    over.setPointerCapture(event.pointerId);
  });
  over.addEventListener("pointermove", (event) => {
    if (!down) return;
    const moved = event.clientX - down.x;
    if (down.pans) {
      if (Math.abs(moved) > CLICK_PX) set(shifted(down, (-moved / over.clientWidth) * (down.max - down.min), limits()));
    } else select(chart, over, down.x, event.clientX);
  });
  over.addEventListener("pointerup", (event) => {
    if (!down) return;
    const { x, pans } = down;
    down = null;
    chart.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
    if (Math.abs(event.clientX - x) <= CLICK_PX) return pick(chart.posToIdx(event.clientX - over.getBoundingClientRect().left));
    if (pans) return;
    const ends = [x, event.clientX].map((each) => timeAt({ clientX: each })).sort((a, b) => a - b);
    set(within({ min: ends[0], max: ends[1] }, limits()));
  });
  over.addEventListener("pointercancel", () => (down = null));
  over.addEventListener("wheel", (event) => {
    const sideways = Math.abs(event.deltaX) > Math.abs(event.deltaY);
    const asked = event.ctrlKey || event.metaKey || chart.root.parentElement === document.activeElement;
    if (!sideways && !asked) return;
    event.preventDefault();
    const seen = range();
    if (sideways) set(shifted(seen, (event.deltaX / over.clientWidth) * (seen.max - seen.min), limits()));
    else set(zoomed(seen, Math.exp(Math.max(-60, Math.min(60, event.deltaY)) * 0.004), limits(), timeAt(event)));
  }, { passive: false });
}

function select(chart, over, from, to) {
  const { left } = over.getBoundingClientRect();
  const ends = [from, to].map((x) => Math.max(0, Math.min(over.clientWidth, x - left))).sort((a, b) => a - b);
  chart.setSelect({ left: ends[0], width: ends[1] - ends[0], top: 0, height: over.clientHeight }, false);
}

/** A range moved by `ms`, as far as the limits allow. */
export function shifted({ min, max }, ms, limits) {
  const by = Math.max(limits.min - min, Math.min(limits.max - max, ms));
  return { min: min + by, max: max + by };
}

/** A range `factor` times as long, around a time. */
export function zoomed({ min, max }, factor, limits, around = (min + max) / 2) {
  return within({ min: around - (around - min) * factor, max: around + (max - around) * factor }, limits);
}

function within({ min, max }, limits) {
  const least = limits.least, middle = (min + max) / 2;
  if (max - min < least) [min, max] = [middle - least / 2, middle + least / 2];
  return { min: Math.max(limits.min, min), max: Math.min(limits.max, max) };
}
