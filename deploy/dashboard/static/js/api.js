// What the server answers, and what it means when it does not.

export class ApiError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

function address(name, parameters) {
  const query = new URLSearchParams();
  for (const [key, value] of Object.entries(parameters ?? {})) {
    if (value !== null && value !== undefined && value !== "") query.set(key, value);
  }
  const text = query.toString();
  return `api/${name}${text ? `?${text}` : ""}`;
}

/** The JSON of `api/NAME`. Raises ApiError, and AbortError where `signal` ends it. */
export async function get(name, parameters, signal) {
  let response;
  try {
    response = await fetch(address(name, parameters), { signal, credentials: "same-origin" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("the dashboard's server does not answer", 0);
  }
  const body = await response.json().catch(() => ({}));
  if (response.ok) return body;
  if (response.status === 401) throw new ApiError("this page wants its token: open the address that tidecast dashboard printed, with ?token=…", 401);
  throw new ApiError(body.error ?? `the server answered ${response.status}`, response.status);
}

export function streamAddress(parameters) {
  return address("stream", parameters);
}

/** Requests of which only the newest counts: starting one ends the one before. */
export class Latest {
  #controller = null;

  /** The answer, or undefined where a newer request took this one's place. */
  async get(name, parameters) {
    this.cancel();
    const controller = (this.#controller = new AbortController());
    try {
      const answer = await get(name, parameters, controller.signal);
      return controller.signal.aborted ? undefined : answer;
    } catch (error) {
      if (error.name === "AbortError" || controller.signal.aborted) return undefined;
      throw error;
    }
  }

  cancel() {
    this.#controller?.abort();
  }
}
