// Elements. Text always goes in as text: nothing here, or anywhere on the page, parses HTML.

/** An element; properties are `class`, `on` (listeners by event), `style` (by property), and attributes. */
export function h(tag, properties, ...children) {
  return fill(apply(document.createElement(tag), properties), children);
}

/** The same in SVG. */
export function svg(tag, properties, ...children) {
  return fill(apply(document.createElementNS("http://www.w3.org/2000/svg", tag), properties), children);
}

function apply(element, properties) {
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    else if (name === "style") Object.assign(element.style, value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  return element;
}

function fill(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined && child !== false) element.append(child);
  }
  return element;
}

/** Replace what an element holds. */
export function show(element, ...children) {
  element.replaceChildren();
  return fill(element, children);
}

/** The same, with the focus where it was, by its place among what can have it. */
export function refill(element, ...children) {
  const places = () => [...element.querySelectorAll("a, button")];
  const at = element.contains(document.activeElement) ? places().indexOf(document.activeElement) : -1;
  show(element, ...children);
  if (at >= 0) places()[at]?.focus({ preventScroll: true });
}

/** Text set only where it changed, so that a live region and a selection are left in peace. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Said by a screen reader when it is idle. */
export function announce(text) {
  setText(document.getElementById("announcer"), text);
}

/** Call `action` at most once in `ms`, the last call always. */
export function throttled(action, ms) {
  let timer = 0, last = 0;
  const call = (...args) => {
    clearTimeout(timer);
    const wait = last + ms - performance.now();
    if (wait <= 0) {
      last = performance.now();
      action(...args);
    } else timer = setTimeout(() => call(...args), wait);
  };
  call.cancel = () => clearTimeout(timer);
  return call;
}

/** Whether an event is typed into a field. */
export function isTyping(event) {
  return event.target instanceof Element && event.target.closest("input:not([type=range]), select, textarea, [contenteditable]") !== null;
}
