/** The server's API. Paths are relative to the page, which can be below a prefix. */

import { createParser } from "eventsource-parser";

const ANSWER_MS = 30_000;
/** The server pings every 10 s. */
const SILENCE_MS = 35_000;
const ATTEMPTS = 8;
const LONGEST_PAUSE_MS = 8_000;
const KEY = "plato.key";

/** What the server refused, or that it is away. */
export class ApiError extends Error {
  /** @param {number} status 0: no answer. */
  constructor(message, status = 0, param = null) {
    super(message);
    this.status = status;
    this.param = param;
  }

  get passes() {
    return this.status === 0 || this.status === 429 || this.status >= 500;
  }
}

export const key = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (value) => sessionStorage.setItem(KEY, value.trim()),
};

/**
 * The JSON of an answer. Throws `ApiError`.
 *
 * @param {string} path
 * @param {{method?: string, body?: any, signal?: AbortSignal}} [options]
 */
export async function request(path, { method = "GET", body, signal } = {}) {
  const deadline = AbortSignal.timeout(ANSWER_MS);
  const response = await send(path, {
    method,
    body: body && JSON.stringify(body),
    headers: body && { "Content-Type": "application/json" },
    signal: signal ? AbortSignal.any([signal, deadline]) : deadline,
  });
  return response.json();
}

/**
 * Follow the events of a run from its start, also if the connection is lost now and then.
 *
 * Returns at the end of the run; throws `ApiError`.
 *
 * @param {string} id
 * @param {object} options
 * @param {AbortSignal} options.signal Stops following; the run goes on.
 * @param {(events: any[]) => void} options.onEvents
 * @param {(lost: boolean) => void} options.onLost
 */
export async function follow(id, { signal, onEvents, onLost }) {
  let last = null;
  let failures = 0;
  const take = (events) => {
    failures = 0;
    onLost(false);
    last = events.at(-1).id;
    onEvents(events);
    return /^run_/.test(events.at(-1).type);
  };
  for (;;) {
    let failure = new ApiError("the connection was lost before the end of the answer");
    try {
      const headers = last ? { "Last-Event-ID": last } : {};
      const response = await send(`v1/runs/${id}/events`, { headers, signal });
      if (response.status === 204 || (await readEvents(response, signal, take))) return;
    } catch (error) {
      if (signal.aborted || !(error instanceof ApiError) || !error.passes) throw error;
      failure = error;
    }
    failures += 1;
    if (failures > ATTEMPTS) throw failure;
    onLost(true);
    await pause(Math.min(250 * 2 ** failures, LONGEST_PAUSE_MS), signal);
  }
}

/** Whether `take` has said that it got the last event. */
async function readEvents(response, signal, take) {
  const events = [];
  let refusal = null;
  const parser = createParser({
    onEvent({ event, data }) {
      const value = JSON.parse(data);
      if (event === "error") refusal = new ApiError(value.error.message);
      else events.push(value);
    },
  });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  const read = () =>
    within(reader.read(), SILENCE_MS).catch((error) => {
      throw signal.aborted ? error : new ApiError("the connection to the server was lost");
    });
  try {
    for (;;) {
      const { done, value } = await read();
      if (done) return false;
      parser.feed(value);
      if (events.length && take(events.splice(0))) return true;
      if (refusal) throw refusal;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

async function send(path, { headers, ...options }) {
  const given = key.get();
  const authorization = given ? { Authorization: `Bearer ${given}` } : {};
  let response;
  try {
    response = await fetch(path, { ...options, headers: { ...headers, ...authorization } });
  } catch (error) {
    if (options.signal?.aborted && options.signal.reason?.name === "AbortError") throw error;
    throw new ApiError("the server does not answer; is it still running?");
  }
  if (response.ok) return response;
  const { error } = await response.json().catch(() => ({}));
  const message = error?.message ?? `the server answered with status ${response.status}`;
  throw new ApiError(message, response.status, error?.param ?? null);
}

function within(promise, milliseconds) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error("too late")), milliseconds);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal.addEventListener(
      "abort",
      () => {
        clearTimeout(timer);
        reject(signal.reason);
      },
      { once: true },
    );
  });
}
