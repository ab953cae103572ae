// The page's state is its URL, so that every view can be shared, and back and forward work.

const listeners = new Set();

/** The state: the parameters of the URL. */
export function read() {
  const state = Object.fromEntries(new URLSearchParams(location.search));
  delete state.token;
  return state;
}

/** The URL of a state. */
export function hrefOf(state) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(state)) {
    if (value !== null && value !== undefined && value !== "") query.set(name, value);
  }
  return `?${query}`;
}

/** Change parts of the state, null takes one out. `replace` leaves no step to go back to. */
export function change(parts, { replace = false } = {}) {
  go({ ...read(), ...parts }, { replace });
}

/** Go to a state. */
export function go(state, { replace = false } = {}) {
  const href = hrefOf(state);
  if (href === location.search || (href === "?" && !location.search)) return;
  history[replace ? "replaceState" : "pushState"](null, "", href);
  for (const listener of listeners) listener(read());
}

/** Note parts of the state in its URL, for the way back to it; nothing changes by it. */
export function note(parts) {
  history.replaceState(null, "", hrefOf({ ...read(), ...parts }));
}

export function onChange(listener) {
  listeners.add(listener);
}

addEventListener("popstate", () => {
  for (const listener of listeners) listener(read());
});

/** A link of this page, as a plain click: not one that opens a tab. */
addEventListener("click", (event) => {
  const link = event.target instanceof Element ? event.target.closest("a[href^='?']") : null;
  if (!link || event.defaultPrevented || event.button || event.metaKey || event.ctrlKey || event.shiftKey) return;
  event.preventDefault();
  go(Object.fromEntries(new URLSearchParams(link.getAttribute("href"))));
});
