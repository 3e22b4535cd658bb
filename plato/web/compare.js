/** The same question twice: sequentially, then planned; then both from the beginning, side by side. */

import { ErrorNote } from "plato/dialogs.js";
import { ExportMenu } from "plato/exports.js";
import { html, useTitle } from "plato/html.js";
import { usePlayback } from "plato/playback.js";
import { enclosed, lengthOf, useRecording } from "plato/recording.js";
import { fold } from "plato/run.js";
import { Answer, Player } from "plato/run_view.js";
import { Legend, Timeline } from "plato/timeline.js";
import { count, rate, seconds } from "plato/words.js";
import { useEffect, useMemo, useRef } from "preact/hooks";

/**
 * @param {object} props
 * @param {string} props.first Id of the sequential run.
 * @param {string | null} props.second Id of the planned one, once it is asked for.
 * @param {(() => void) | null} props.askSecond Called when the first has ended.
 */
export function Compare({ first, second, askSecond }) {
  const recordings = [useRecording(first), useRecording(second)];
  const [sequential, planned] = recordings;
  const playback = usePlayback(second ? recordings : [sequential]);
  const both = sequential.ended && planned.ended;
  const watched = useRef(false);

  useTitle(sequential.run?.question);
  useEffect(() => {
    if (sequential.ended && sequential.run.status === "done" && !second) askSecond?.();
  }, [sequential.ended]);
  useEffect(() => {
    if (!both) watched.current = true;
    // Whoever has waited for both sees them again; who follows a link starts it.
    else if (watched.current && !matchMedia("(prefers-reduced-motion: reduce)").matches)
      playback.play();
  }, [both]);

  const at = (recording) =>
    both ? Math.min(playback.at, lengthOf(recording)) : lengthOf(recording);
  const end = Math.max(...recordings.map(lengthOf));
  return html`
    <article class="comparison">
      <header class="question">
        <h1 dir="auto" title=${sequential.run?.question}>${sequential.run?.question ?? " "}</h1>
        <p class="status" role="status">${both ? verdict(sequential, planned) : turn(sequential, planned, second)}</p>
        <div class="actions">
          ${both && html`<${Player} playback=${playback} /><${ExportMenu} recordings=${recordings} />`}
        </div>
      </header>
      <${Side} name="Sequential" recording=${sequential} at=${at(sequential)} end=${end} />
      <${Side} name="Plato" recording=${planned} at=${at(planned)} end=${end} />
      <footer><${Legend} /></footer>
    </article>
  `;
}

function Side({ name, recording, at, end }) {
  const { events, run, ended, error } = recording;
  const until = at >= lengthOf(recording) ? Infinity : at;
  const state = useMemo(() => fold(events, until), [events, until]);
  const tokens = state.nodes.reduce((sum, node) => sum + node.tokens, 0);
  const id = `side-${name}`;
  return html`
    <section class="pane side" aria-labelledby=${id}>
      <header>
        <h2 id=${id}>${run && !enclosed.length ? html`<a href="#/runs/${run.id}">${name}</a>` : name}</h2>
        <small class="number">
          ${run ? `${seconds(at)} · ${count(tokens, "token")} · ${rate(tokens, at)}` : !error && "waits for its turn"}
        </small>
      </header>
      <div class="scroll" tabindex="0" role="group" aria-labelledby=${id}>
        <${Answer} state=${state} live=${run && !ended} />
        ${error && html`<${ErrorNote} error=${error} />`}
        ${state.run?.error && html`<${ErrorNote} error=${state.run.error} />`}
      </div>
      <${Timeline} state=${state} at=${at} end=${end} />
    </section>
  `;
}

function turn(sequential, planned, second) {
  if (sequential.error || planned.error) return "The answers cannot be compared.";
  if (second) return "Now as Plato answers; then both are shown from the beginning.";
  if (sequential.ended) return "Only the sequential answer is there.";
  return "First sequentially, token after token.";
}

function verdict(...recordings) {
  const [before, after] = recordings.map(({ run }) => ({
    length: run.plato.timings.duration_s,
    tokens: run.plato.usage.output_tokens,
  }));
  if (recordings.some(({ run }) => run.status !== "done"))
    return "One of the answers is incomplete.";
  const [slow, fast] = [before, after].map(({ tokens, length }) => tokens / length);
  return (
    `${seconds(after.length)} instead of ${seconds(before.length)}, ` +
    `${(fast / slow).toFixed(2)} times the tokens a second ` +
    `(${after.tokens} and ${count(before.tokens, "token")}).`
  );
}
