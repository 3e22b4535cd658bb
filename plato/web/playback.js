/** The time that is shown of recordings: now while a run goes on, any time afterwards. */

import { lengthOf } from "plato/recording.js";
import { useEffect, useState } from "preact/hooks";

const TICK_MS = 100;

/**
 * @param {import("plato/recording.js").Recording[]} recordings Shown at the same time.
 * @returns {{at: number, end: number, live: boolean, playing: boolean, play: () => void,
 *   pause: () => void, seek: (at: number) => void}}
 *   `at` and `end` in seconds since the start of the runs.
 */
export function usePlayback(recordings) {
  const live = recordings.some(({ ended, error }) => !ended && !error);
  const end = Math.max(0, ...recordings.map(lengthOf));
  /** Where the replay stands, and since when it plays; null: the end. */
  const [head, setHead] = useState(null);
  const playing = head?.since != null;
  const now = useClock(live || playing);
  const at = live ? liveTime(recordings, now) : Math.min(end, position(head, now) ?? end);

  useEffect(() => {
    if (playing && at >= end) setHead(null);
  }, [playing, at >= end]);

  return {
    at,
    end,
    live,
    playing,
    play: () => setHead({ from: at < end ? at : 0, since: performance.now() }),
    pause: () => setHead({ from: at, since: null }),
    seek: (from) => setHead({ from, since: null }),
  };
}

/** `performance.now()`, which goes on while `running`. */
function useClock(running) {
  const [now, setNow] = useState(performance.now());
  useEffect(() => {
    if (!running) return undefined;
    setNow(performance.now());
    const timer = setInterval(() => setNow(performance.now()), TICK_MS);
    return () => clearInterval(timer);
  }, [running]);
  return now;
}

function position(head, now) {
  if (head === null) return null;
  return head.from + (head.since === null ? 0 : Math.max(0, now - head.since) / 1000);
}

/** Time goes on between events, so that bars grow evenly. */
function liveTime(recordings, now) {
  const times = recordings
    .filter(({ ended }) => !ended)
    .map(
      (each) =>
        lengthOf(each) + (each.events.length ? Math.max(0, now - each.receivedAt) / 1000 : 0),
    );
  return Math.max(0, ...times);
}
