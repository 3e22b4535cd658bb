/** A plan of one's own: titles, what each part needs, and how long it should be. */

import { Graph } from "plato/graph.js";
import { html } from "plato/html.js";

/**
 * @typedef {object} PlannedPart As in the API's `plato.plan`.
 * @property {string} title
 * @property {number[]} dependencies Numbers of earlier parts.
 * @property {"short" | "medium" | "long"} length
 */

/** @type {PlannedPart} */
const NEW = { title: "", dependencies: [], length: "medium" };

/** @type {PlannedPart[]} */
export const NO_PLAN = [NEW, NEW];

/** The plan of a run. */
export function planOf(nodes) {
  return nodes.map(({ title, dependencies, length }) => ({
    title,
    dependencies,
    length: length ?? "medium",
  }));
}

/** The plan without one of its parts; later ones move up. */
function without(plan, gone) {
  return plan
    .filter((_, index) => index + 1 !== gone)
    .map((part) => ({
      ...part,
      dependencies: part.dependencies
        .filter((number) => number !== gone)
        .map((number) => (number > gone ? number - 1 : number)),
    }));
}

/** @param {{plan: PlannedPart[], onChange: (plan: PlannedPart[]) => void}} props */
export function PlanEditor({ plan, onChange }) {
  const change = (number, changed) =>
    onChange(plan.map((part, index) => (index + 1 === number ? { ...part, ...changed } : part)));
  const drawn = plan.map((part, index) => ({
    ...part,
    number: index + 1,
    title: part.title || "…",
    state: "planned",
    tokens: 0,
    retries: [],
  }));
  return html`
    <fieldset class="plan-editor">
      <legend>Plan</legend>
      <ol role="list">
        ${plan.map(
          (part, index) => html`
            <${Editor}
              key=${index}
              number=${index + 1}
              part=${part}
              onChange=${(changed) => change(index + 1, changed)}
              onRemove=${plan.length > 2 ? () => onChange(without(plan, index + 1)) : null}
            />
          `,
        )}
      </ol>
      <button type="button" onClick=${() => onChange([...plan, NEW])}>Add a part</button>
      <div class="scroll" tabindex="0" role="group" aria-label="Drawing of the plan">
        <${Graph} nodes=${drawn} />
      </div>
    </fieldset>
  `;
}

function Editor({ number, part, onChange, onRemove }) {
  const { title, dependencies, length } = part;
  const toggle = (other) =>
    dependencies.includes(other)
      ? dependencies.filter((each) => each !== other)
      : [...dependencies, other].sort((a, b) => a - b);
  return html`
    <li>
      <label class="part-title">
        <b>${number}</b>
        <input
          required
          maxlength="200"
          dir="auto"
          aria-label="Title of part ${number}"
          placeholder="Title"
          value=${title}
          onInput=${(event) => onChange({ title: event.currentTarget.value })}
        />
      </label>
      <select
        aria-label="Length of part ${number}"
        value=${length}
        onChange=${(event) => onChange({ length: event.currentTarget.value })}
      >
        ${["short", "medium", "long"].map((each) => html`<option value=${each}>${each}</option>`)}
      </select>
      <button type="button" class="quiet" aria-label="Remove part ${number}" disabled=${!onRemove} onClick=${onRemove}>
        Remove
      </button>
      ${
        number > 1 &&
        html`
          <span class="needs" role="group" aria-label="Part ${number} needs">
            needs
            ${Array.from({ length: number - 1 }, (_, index) => index + 1).map(
              (other) => html`
                <button
                  type="button"
                  aria-pressed=${dependencies.includes(other)}
                  onClick=${() => onChange({ dependencies: toggle(other) })}
                >
                  ${other}
                </button>
              `,
            )}
          </span>
        `
      }
    </li>
  `;
}
