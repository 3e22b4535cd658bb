/** When what was done: a row for the plan and for each part, on one axis of time. */

import { html } from "plato/html.js";
import { axisEnd } from "plato/layout.js";
import { cachedShare, count, marks, nameOf, seconds, stateWords } from "plato/words.js";

const TICKS = 4;

/**
 * @param {object} props
 * @param {import("plato/run.js").State} props.state
 * @param {number} props.at The time that is shown, in seconds.
 * @param {number} [props.end] Of the axis; default: as long as it takes.
 * @param {number | null} [props.selected]
 * @param {(number: number) => void} [props.onSelect]
 */
export function Timeline({ state, at, end, selected, onSelect }) {
  const length = axisEnd(end ?? at);
  const plan = planRow(state, at);
  const first = state.firstTextS;
  const ticks = Array.from({ length: TICKS + 1 }, (_, index) => (index * length) / TICKS);
  return html`
    <div class="timeline" data-first=${first != null} style=${{ "--first": first / length }}>
      <div class="axis" aria-hidden="true">
        ${ticks.map((tick) => html`<span style=${{ "--at": tick / length }}>${tick} s</span>`)}
      </div>
      <ol role="list">
        ${plan && html`<${Row} key="plan" label="Plan" ...${plan} length=${length} />`}
        ${state.nodes.map(
          (node) => html`
            <${Row}
              key=${node.number}
              label=${nameOf(node)}
              bars=${partBars(node, at)}
              facts=${factsOf(node)}
              length=${length}
              selected=${selected === node.number}
              onSelect=${onSelect && (() => onSelect(node.number))}
            />
          `,
        )}
      </ol>
    </div>
  `;
}

/** What the patterns of the bars mean. */
export function Legend() {
  return html`
    <ul class="legend" role="list" aria-label="Legend">
      ${["waits", "prefill", "decode"].map(
        (kind) => html`<li><span class="bar" data-kind=${kind}></span>${kind}</li>`,
      )}
      <li><i></i>first text</li>
    </ul>
  `;
}

function Row({ label, bars, facts, length, selected, onSelect }) {
  const name = html`<span dir="auto">${label}</span>`;
  return html`
    <li data-selected=${Boolean(selected)}>
      ${
        onSelect
          ? html`<button type="button" class="row-label" title=${label} onClick=${onSelect}>${name}</button>`
          : html`<span class="row-label">${name}</span>`
      }
      <span class="track">
        ${bars.map(
          ({ kind, from, to, state }) => html`
            <span
              class="bar"
              data-kind=${kind}
              data-state=${state}
              style=${{ "--from": from / length, "--to": to / length }}
              title="${kind}: ${seconds(to - from)}"
            >
              <span class="unseen">${kind} ${seconds(from)} to ${seconds(to)}</span>
            </span>
          `,
        )}
      </span>
      <span class="row-facts">${facts}</span>
    </li>
  `;
}

/** Nothing, if the answer is not planned. */
function planRow({ mode, plan, planComplete }, at) {
  if (mode === "sequential" && !plan?.tokens) return null;
  if (plan?.source === "request") return { bars: [], facts: "given" };
  const to = planComplete ? plan.finished_s : at;
  return {
    bars: [{ kind: "decode", from: plan?.started_s ?? 0, to, state: "plan" }],
    facts: plan?.tokens ? count(plan.tokens, "token") : "",
  };
}

/** The times of a part so far: it waits, for others and for a decoder; prefill; decoding. */
function partBars(node, at) {
  const over = ["done", "failed", "cancelled"].includes(node.state);
  const end = node.finished_s ?? at;
  const taken = node.taken_s ?? node.started_s ?? end;
  const first = node.first_token_s ?? end;
  const bars = [
    { kind: "waits", from: node.planned_s, to: taken },
    { kind: "prefill", from: taken, to: first },
    { kind: "decode", from: first, to: end },
  ];
  return bars
    .filter(({ from, to }) => to > from)
    .map((bar) => ({ ...bar, state: over ? node.state : "running" }));
}

function factsOf(node) {
  const tokens = node.tokens ? count(node.tokens, "token") : stateWords(node.state);
  return [tokens, cachedShare(node), ...marks(node)].filter(Boolean).join(" · ");
}
