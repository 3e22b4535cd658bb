/** One run: its plan beside the answer, and the timeline beneath. */

import { request } from "plato/api.js";
import { ErrorNote } from "plato/dialogs.js";
import { ExportMenu } from "plato/exports.js";
import { Graph, StateIcon } from "plato/graph.js";
import { html, useTitle } from "plato/html.js";
import { Markdown } from "plato/markdown.js";
import { Part } from "plato/part.js";
import { usePlayback } from "plato/playback.js";
import { enclosed, useRecording } from "plato/recording.js";
import { fold } from "plato/run.js";
import { Legend, Timeline } from "plato/timeline.js";
import { count, nameOf, rate, seconds } from "plato/words.js";
import { useEffect, useMemo, useState } from "preact/hooks";

/** Parts for which there is room before the plan is known. */
const ROOM = 5;

/**
 * @param {object} props
 * @param {string} props.id
 * @param {(run: any, nodes: any[]) => void} props.onAskAgain
 */
export function RunView({ id, onAskAgain }) {
  const recording = useRecording(id);
  const playback = usePlayback([recording]);
  const [selected, setSelected] = useState(null);
  const { run, events, ended, error, lost } = recording;
  const { at, live } = playback;
  const until = live || at >= playback.end ? Infinity : at;
  const state = useMemo(() => fold(events, until), [events, until]);
  const part = state.nodes.find(({ number }) => number === selected);
  const choose = (number) => setSelected(number === selected ? null : number);

  useTitle(run?.question);
  useEffect(() => {
    const leave = (event) => {
      if (event.key !== "Escape" || selected === null) return;
      document.getElementById(`part-${selected}`)?.focus();
      setSelected(null);
    };
    addEventListener("keydown", leave);
    return () => removeEventListener("keydown", leave);
  }, [selected]);

  if (error && !run) return html`<h1>This run cannot be shown</h1><${ErrorNote} error=${error} />`;
  const rows =
    1 + Math.min(ROOM, run?.options.mode === "sequential" ? 1 : (run?.options.max_nodes ?? ROOM));
  return html`
    <article class="run" style=${{ "--room": rows }}>
      <header class="question">
        <h1 dir="auto" title=${run?.question}>${run?.question ?? " "}</h1>
        <${Status} recording=${recording} state=${state} at=${at} />
        <div class="actions">
          ${live && html`<${CancelButton} id=${id} />`}
          ${ended && html`<${ExportMenu} recordings=${[recording]} />`}
          ${
            ended &&
            !enclosed.length &&
            html`<button type="button" onClick=${() => onAskAgain(run, state.nodes)}>Ask again</button>`
          }
        </div>
      </header>
      <section class="pane plan" aria-labelledby="plan-title">
        <header><h2 id="plan-title">Plan</h2><${PlanNote} state=${state} /></header>
        <div class="scroll" tabindex="0" role="group" aria-label="Parts">
          <${Graph} nodes=${state.nodes} selected=${selected} onSelect=${choose} />
        </div>
      </section>
      <section class="pane reading" aria-labelledby="reading-title">
        <header>
          <h2 id="reading-title" dir="auto">${part ? nameOf(part) : "Answer"}</h2>
          ${part && html`<button type="button" class="quiet" onClick=${() => setSelected(null)}>Back to the answer</button>`}
        </header>
        <div class="scroll" tabindex="0" role="group" aria-label="Answer" hidden=${Boolean(part)}>
          <${Answer} state=${state} live=${live} />
          ${error && html`<${ErrorNote} error=${error} />`}
          ${state.run?.error && html`<${ErrorNote} error=${state.run.error} />`}
        </div>
        ${
          part &&
          html`
            <div key=${part.number} class="scroll" tabindex="0" role="group" aria-labelledby="reading-title">
              <${Part} node=${part} />
            </div>
          `
        }
      </section>
      <section class="pane times" aria-labelledby="times-title">
        <header>
          <h2 id="times-title">Timeline</h2>
          <${Legend} />
          ${ended && html`<${Player} playback=${playback} />`}
        </header>
        <div class="scroll" tabindex="0" role="group" aria-labelledby="times-title">
          <${Timeline}
            state=${state}
            at=${at}
            end=${live ? undefined : playback.end}
            selected=${selected}
            onSelect=${choose}
          />
        </div>
      </section>
      <p class="unseen" role="status">${announcement(state, lost)}</p>
    </article>
  `;
}

/** @param {{state: import("plato/run.js").State, live: boolean}} props */
export function Answer({ state, live }) {
  if (state.answer) return html`<${Markdown} text=${state.answer} />`;
  return live && html`<p class="muted">The text appears here in the order of the plan.</p>`;
}

/** Play, pause, and any moment of recordings that have ended. */
export function Player({ playback }) {
  const { at, end, playing, play, pause, seek } = playback;
  return html`
    <span class="player">
      <button type="button" class="quiet" onClick=${playing ? pause : play}>${playing ? "Pause" : "Replay"}</button>
      <input
        type="range"
        aria-label="Time"
        aria-valuetext=${seconds(at)}
        min="0"
        max=${end}
        step="any"
        value=${at}
        onInput=${(event) => seek(event.currentTarget.valueAsNumber)}
      />
      <span class="number">${seconds(at)}</span>
    </span>
  `;
}

function Status({ recording, state, at }) {
  const { lost, error } = recording;
  const status = state.run?.status ?? (error ? "failed" : recording.run ? "running" : "queued");
  const tokens = state.nodes.reduce((sum, node) => sum + node.tokens, 0);
  const info = state.run?.plato;
  const notes = [
    lost && "The connection is lost; trying again.",
    state.reason,
    state.run?.finish_reason === "length" && "The answer was cut by a limit.",
    info?.degraded.length > 0 && `Without: ${info.degraded.join(", ")}.`,
    info?.ignored.length > 0 && `Ignored: ${info.ignored.join(", ")}.`,
  ];
  return html`
    <p class="status">
      <span class="chip" data-state=${status}><${StateIcon} state=${status} />${progress(state, status)}</span>
      <span>${state.mode ?? recording.run?.options.mode ?? ""}</span>
      <span class="number">${seconds(at)}</span>
      <span class="number">${count(tokens, "token")}</span>
      <span class="number">${rate(tokens, at)}</span>
      ${state.firstTextS != null && html`<span class="number">first text after ${seconds(state.firstTextS)}</span>`}
      <span class="note">${notes.filter(Boolean).join(" ")}</span>
    </p>
  `;
}

function progress({ nodes }, status) {
  if (status === "queued") return "asking";
  if (status === "running") return nodes.length ? "writing" : "planning";
  return status;
}

function PlanNote({ state }) {
  const { mode, plan, planComplete, nodes } = state;
  if (mode === "sequential") return html`<small>not split</small>`;
  if (!nodes.length) return html`<small>planning …</small>`;
  if (!planComplete) return html`<small>${count(nodes.length, "part")} so far</small>`;
  const done = nodes.filter((node) => node.state === "done").length;
  const by = plan?.source === "request" ? ", your plan" : "";
  return html`<small class="number">${done} of ${count(nodes.length, "part")} done${by}</small>`;
}

/** For screen readers: states, never tokens. */
function announcement(state, lost) {
  if (lost) return "The connection is lost; trying again.";
  if (state.run) return `The answer is ${state.run.status}.`;
  const done = state.nodes.filter((node) => node.state === "done").map(({ number }) => number);
  if (done.length) return `Done: ${count(done.length, "part")} of ${state.nodes.length}.`;
  return state.planComplete ? `Planned: ${count(state.nodes.length, "part")}.` : "";
}

function CancelButton({ id }) {
  const [error, setError] = useState(null);
  const [asked, setAsked] = useState(false);
  const cancel = async () => {
    setAsked(true);
    try {
      await request(`v1/runs/${id}`, { method: "DELETE" });
    } catch (refused) {
      setError(refused);
      setAsked(false);
    }
  };
  return html`
    <button type="button" disabled=${asked} onClick=${cancel}>Cancel</button>
    ${error && html`<${ErrorNote} error=${error} />`}
  `;
}
