// Numbers and times as people read them.

export const NONE = "–";
const MINUS = "\u2212";
const SCALES = [[1e12, "trillion"], [1e9, "billion"], [1e6, "million"]];
const formats = new Map();

function plain(value, options) {
  const key = JSON.stringify(options);
  if (!formats.has(key)) formats.set(key, new Intl.NumberFormat("en", options));
  return formats.get(key).format(value).replace("-", MINUS);
}

/** A measured value: four significant digits, all before the point, words from a million on. */
export function number(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return NONE;
  const size = Math.abs(value);
  if (size >= 1e15 || (size > 0 && size < 1e-4)) return value.toExponential(2).replaceAll("-", MINUS);
  for (const [scale, word] of SCALES) {
    if (size >= scale) return `${plain(value / scale, { maximumSignificantDigits: 4 })} ${word}`;
  }
  return size >= 1000 ? plain(value, { maximumFractionDigits: 0 }) : plain(value, { maximumSignificantDigits: 4 });
}

/** The values of a column, with equally many decimals, so that they align at the point: as many as the largest needs
 * for four digits, and the smallest for two. */
export function column(values) {
  const sizes = values.filter((value) => Number.isFinite(value) && value).map(Math.abs);
  const largest = Math.max(...sizes), smallest = Math.min(...sizes);
  if (!sizes.length || largest >= 1e6 || smallest < 1e-4) return values.map(number);
  const places = Math.max(3 - Math.floor(Math.log10(largest)), Math.min(3, 1 - Math.floor(Math.log10(smallest))), 0);
  return values.map((value) => (Number.isFinite(value) ? plain(value, { minimumFractionDigits: places, maximumFractionDigits: places }) : NONE));
}

/** A number of things. */
export function count(value) {
  if (value === null || value === undefined) return NONE;
  for (const [scale, word] of SCALES) {
    if (value >= 10 * scale) return `${plain(value / scale, { maximumSignificantDigits: 3 })} ${word}`;
  }
  return plain(value, { maximumFractionDigits: 0 });
}

/** 3 series, 1 series; 2 steps, 1 step. */
export function counted(value, one, many = `${one}s`) {
  return `${count(value)} ${value === 1 ? one : many}`;
}

/** A share as per cent. */
export function percent(value, digits = 1) {
  if (value === null || value === undefined || !Number.isFinite(value)) return NONE;
  return `${plain(100 * value, { minimumFractionDigits: digits, maximumFractionDigits: digits })} %`;
}

/** A skill, with its sign. */
export function skill(value, digits = 2) {
  if (value === null || value === undefined || !Number.isFinite(value)) return NONE;
  return value < -9.995 ? "< \u221210" : plain(value, { minimumFractionDigits: digits, maximumFractionDigits: digits, signDisplay: "exceptZero" });
}

/** A rate by the second. */
export function rate(value) {
  if (value === null || value === undefined) return NONE;
  return `${value >= 100 ? count(value) : plain(value, { maximumSignificantDigits: 3 })}/s`;
}

const UNITS = [[86_400_000, "d"], [3_600_000, "h"], [60_000, "min"], [1000, "s"]];

/** A length of time, its two largest units. */
export function duration(ms) {
  if (ms === null || ms === undefined || !Number.isFinite(ms)) return NONE;
  if (Math.abs(ms) < 1000) return `${plain(ms, { maximumSignificantDigits: 3 })} ms`;
  if (Math.abs(ms) < 10_000) return `${plain(ms / 1000, { maximumSignificantDigits: 2 })} s`;
  const place = UNITS.findIndex(([unit]) => Math.abs(ms) >= unit);
  const [unit, name] = UNITS[place];
  const whole = Math.trunc(ms / unit), next = UNITS[place + 1];
  const rest = next ? Math.round((ms - whole * unit) / next[0]) : 0;
  if (!rest || whole >= 10) return `${plain(Math.round(ms / unit), {})} ${name}`;
  return rest * next[0] === unit ? `${whole + 1} ${name}` : `${whole} ${name} ${rest} ${next[1]}`;
}

/** How long ago, by this computer's clock. */
export function ago(ts) {
  const passed = Date.now() - ts;
  if (ts === null || ts === undefined) return NONE;
  if (passed < -60_000) return `${duration(-passed)} ahead of the clock`;
  return passed < 2000 ? "now" : `${duration(passed)} ago`;
}

/** The first letters of a digest. */
export function digest(sha256) {
  return sha256 ? sha256.slice(0, 12) : NONE;
}
