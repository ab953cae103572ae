// The stream of server-sent events of the view that is open, and whether it is alive.

import { streamAddress } from "./api.js";

const RETRY_MS = [500, 1000, 2000, 4000];
const EVENTS = ["overview", "status", "points", "fleet", "models", "service", "texts"];

/** One connection at a time. `onState` is called with "live", "connecting" or "reconnecting". */
export class Live {
  #source = null;
  #wanted = null;
  #timer = 0;
  #failures = 0;
  #state = "";

  constructor(onState, onEvent, onReturn) {
    Object.assign(this, { onState, onEvent, onReturn });
    document.addEventListener("visibilitychange", () => this.#visibility());
    addEventListener("pagehide", () => this.#close());
    addEventListener("online", () => this.#wanted && this.#open());
  }

  /** Follow a view; null follows none. */
  follow(parameters) {
    const same = JSON.stringify(parameters) === JSON.stringify(this.#wanted);
    this.#wanted = parameters;
    if (same && this.#source) return;
    this.#failures = 0;
    if (parameters) this.#open();
    else this.#close();
  }

  #open() {
    this.#close();
    if (!this.#wanted || document.hidden) return;
    if (!this.#failures) this.#say(this.#state === "live" ? "live" : "connecting");
    const source = (this.#source = new EventSource(streamAddress(this.#wanted)));
    source.onopen = () => {
      const returned = this.#failures > 0;
      this.#failures = 0;
      this.#say("live");
      if (returned) this.onReturn();
    };
    source.onerror = () => this.#failed();
    for (const name of EVENTS) source.addEventListener(name, (event) => this.onEvent(name, JSON.parse(event.data)));
  }

  /** EventSource gives up on some answers, so that the retries are ours. */
  #failed() {
    this.#close();
    this.#say("reconnecting");
    this.#timer = setTimeout(() => this.#open(), RETRY_MS[Math.min(this.#failures++, RETRY_MS.length - 1)]);
  }

  #close() {
    clearTimeout(this.#timer);
    this.#source?.close();
    this.#source = null;
  }

  /** A page in the background costs the server nothing. */
  #visibility() {
    if (document.hidden) this.#close();
    else if (this.#wanted && !this.#source) {
      this.#failures ||= 1;
      this.#open();
    }
  }

  #say(state) {
    if (state !== this.#state) this.onState((this.#state = state));
  }
}
