/** The form for a question. */

import { ErrorNote } from "plato/dialogs.js";
import { html } from "plato/html.js";
import { NO_PLAN, PlanEditor } from "plato/plan_editor.js";
import { useState } from "preact/hooks";

/**
 * @typedef {object} Draft
 * @property {string} question
 * @property {string} mode
 * @property {string} maxNodes A number, or empty.
 * @property {boolean} headings
 * @property {import("plato/plan_editor.js").PlannedPart[] | null} plan
 */

/** @type {Draft} */
export const EMPTY_DRAFT = { question: "", mode: "auto", maxNodes: "", headings: true, plan: null };

const MODES = {
  auto: "The model decides whether splitting the answer helps.",
  plato: "Planned: parts that need nothing from each other are written at the same time.",
  skeleton: "Planned, and no part sees another.",
  sequential: "Not planned: one token after the other.",
};

const EXAMPLES = [
  "How do I choose my first road bicycle?",
  "What are the advantages and disadvantages of living in a small town?",
  "Compare solar, wind and nuclear power, and recommend one for an island.",
];

/** The body of a request for the answer to a draft. */
export function bodyOf({ question, maxNodes, headings, plan }, mode) {
  const planned = mode !== "sequential";
  return {
    messages: [{ role: "user", content: question }],
    plato: {
      mode,
      headings,
      prompts: true,
      ...(planned && maxNodes && { max_nodes: Number(maxNodes) }),
      ...(planned && plan && { plan }),
    },
  };
}

/**
 * @param {object} props
 * @param {Draft} props.draft
 * @param {(draft: Draft) => void} props.onChange
 * @param {(draft: Draft, compare: boolean) => Promise<void>} props.onAsk Throws `ApiError`.
 * @param {any} props.info Of the server, once it is known.
 */
export function Ask({ draft, onChange, onAsk, info }) {
  const [asking, setAsking] = useState(false);
  const [error, setError] = useState(null);
  const change = (changed) => onChange({ ...draft, ...changed });

  const ask = async (compare) => {
    if (asking) return;
    if (!draft.question.trim()) {
      setError({ message: "There is no question yet; write one." });
      return;
    }
    setAsking(true);
    setError(null);
    try {
      await onAsk(draft, compare);
    } catch (refused) {
      setError(refused);
      setAsking(false);
    }
  };
  const submit = (event) => {
    event.preventDefault();
    ask(event.submitter?.name === "compare");
  };
  const enter = (event) => {
    // While characters are composed, Enter chooses one.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    event.currentTarget.form.requestSubmit();
  };

  return html`
    <section class="ask">
      <h1>Ask a question</h1>
      <p class="muted">
        The model first writes a plan. Parts of the answer that need nothing from each other are
        then written at the same time; the others see the text that they need.
      </p>
      <form onSubmit=${submit}>
        <label class="unseen" for="question">Question</label>
        <textarea
          id="question"
          rows="4"
          dir="auto"
          autofocus
          placeholder="What would you like to know?"
          value=${draft.question}
          onInput=${(event) => change({ question: event.currentTarget.value })}
          onKeyDown=${enter}
        ></textarea>
        <div class="options">
          <fieldset class="modes" aria-describedby="mode-hint">
            <legend class="unseen">Mode</legend>
            ${Object.keys(MODES).map(
              (mode) => html`
                <label>
                  <input type="radio" name="mode" checked=${draft.mode === mode} onChange=${() => change({ mode })} />
                  <span>${mode}</span>
                </label>
              `,
            )}
          </fieldset>
          <label>
            Most parts
            <input
              type="number"
              min="2"
              max=${info?.limits.max_nodes}
              placeholder=${info?.limits.max_nodes}
              value=${draft.maxNodes}
              onInput=${(event) => change({ maxNodes: event.currentTarget.value })}
            />
          </label>
          <label>
            <input
              type="checkbox"
              checked=${draft.headings}
              onChange=${(event) => change({ headings: event.currentTarget.checked })}
            />
            Headings
          </label>
          <label>
            <input
              type="checkbox"
              checked=${draft.plan !== null}
              onChange=${(event) => change({ plan: event.currentTarget.checked ? NO_PLAN : null })}
            />
            My own plan
          </label>
        </div>
        <p class="muted" id="mode-hint">${MODES[draft.mode]}</p>
        ${draft.plan && html`<${PlanEditor} plan=${draft.plan} onChange=${(plan) => change({ plan })} />`}
        ${error && html`<${ErrorNote} error=${error} />`}
        <div class="actions">
          <button class="primary" disabled=${asking}>${asking ? "Asking …" : "Ask"}</button>
          <button name="compare" disabled=${asking} title="Ask sequentially, then with a plan; see both side by side">
            Compare with sequential
          </button>
        </div>
      </form>
      <h2>Or try one of these</h2>
      <ul class="examples" role="list">
        ${EXAMPLES.map(
          (question) =>
            html`<li><button type="button" onClick=${() => change({ question })}>${question}</button></li>`,
        )}
      </ul>
    </section>
  `;
}
