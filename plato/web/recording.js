/**
 * What was seen of a run: its object and its events. A file that replays without a server holds
 * some.
 *
 * @typedef {object} Recording
 * @property {any} run The run object: of its end, else of when it was first asked for.
 * @property {any[]} events
 * @property {boolean} ended
 * @property {number} receivedAt When the last events came, by `performance.now()`.
 * @property {boolean} lost Whether the connection is lost for the moment.
 * @property {import("plato/api.js").ApiError | null} error
 */

import { follow, request } from "plato/api.js";
import { timeOf } from "plato/run.js";
import { useEffect, useState } from "preact/hooks";

/** @type {Recording} */
const NOTHING = { run: null, events: [], ended: false, receivedAt: 0, lost: false, error: null };

/** The recordings of a file that replays without a server; empty at a server. */
export const enclosed = JSON.parse(document.getElementById("recordings")?.textContent ?? "[]").map(
  (recording) => ({ ...NOTHING, ...recording, ended: true }),
);

/**
 * The recording of a run, which grows while the run goes on.
 *
 * @param {string | null} id
 * @returns {Recording}
 */
export function useRecording(id) {
  const [recording, setRecording] = useState(NOTHING);
  useEffect(() => {
    const found = enclosed.find(({ run }) => run.id === id);
    setRecording(found ?? NOTHING);
    if (!id || found) return undefined;
    const stop = new AbortController();
    record(id, stop.signal, (change) => {
      if (!stop.signal.aborted) setRecording((current) => ({ ...current, ...change }));
    });
    return () => stop.abort();
  }, [id]);
  return recording;
}

/** Seconds from the start of a run to its last event so far. */
export function lengthOf({ events }) {
  return events.length ? timeOf(events.at(-1)) : 0;
}

async function record(id, signal, change) {
  let events = [];
  try {
    const asked = await request(`v1/runs/${id}`, { signal });
    change({ run: asked });
    await follow(id, {
      signal,
      onLost: (lost) => change({ lost }),
      onEvents(more) {
        events = [...events, ...more];
        const { run } = more.at(-1);
        // Other events only name their run.
        const ended = typeof run === "object";
        change({
          events,
          ended,
          receivedAt: performance.now(),
          // Of a run that has ended, the server keeps only the beginning of its question.
          ...(ended && { run: { ...run, question: asked.question } }),
        });
      },
    });
  } catch (error) {
    if (!signal.aborted) change({ error, lost: false });
  }
}
