// Dark and light, and the colours of the charts, which are those of the style sheet.

const KEY = "tidecast.theme";
const system = matchMedia("(prefers-color-scheme: dark)");
const listeners = new Set();
let colours = new Map();

export function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : system.matches;
}

export function toggleTheme() {
  const chosen = isDark() ? "light" : "dark";
  document.documentElement.dataset.theme = chosen;
  try {
    localStorage.setItem(KEY, chosen);
  } catch { /* storage is switched off: for this visit only */ }
  changed();
}

export function onTheme(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

function changed() {
  colours = new Map();
  for (const listener of listeners) listener();
}

system.addEventListener("change", changed);

/** The value of a custom property, such as "forecast". */
export function colour(name) {
  if (!colours.has(name)) {
    colours.set(name, getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim());
  }
  return colours.get(name);
}
