/** One part: its text, what it cost, and what its prompt was made of. */

import { html } from "plato/html.js";
import { Markdown } from "plato/markdown.js";
import { count, listed, rate, seconds, stateWords } from "plato/words.js";

/** @param {{node: import("plato/run.js").Node}} props */
export function Part({ node }) {
  return html`
    <dl class="facts">
      ${facts(node).map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}
    </dl>
    ${
      node.text.trim()
        ? html`<${Markdown} text=${node.text} />`
        : html`<p class="muted">${stateWords(node.state)}</p>`
    }
    ${
      node.prompt &&
      html`<details class="prompt"><summary>Prompt</summary><pre dir="auto" tabindex="0">${node.prompt}</pre></details>`
    }
  `;
}

function facts(node) {
  const { planned_s, started_s, taken_s, first_token_s, finished_s } = node;
  const span = (from, to) => (from == null || to == null ? null : to - from);
  const decoding = span(first_token_s, finished_s);
  const missing = (node.sees ?? []).length < node.dependencies.length;
  return [
    ["State", stateWords(node.state)],
    ["Needs", listed(node.dependencies) || "nothing"],
    [
      "Sees",
      node.sees?.length ? seen(node) : missing && started_s != null ? "nothing of them" : null,
    ],
    ["Prompt", node.prompt_tokens && promptWords(node)],
    ["Waited", seconds(span(planned_s, taken_s ?? started_s))],
    ["Prefill", seconds(span(taken_s ?? started_s, first_token_s))],
    ["Decoding", decoding == null ? null : `${seconds(decoding)}, ${rate(node.tokens, decoding)}`],
    ["Tokens", node.tokens && tokenWords(node)],
    ["Decoder", node.replica],
    ["Retried", node.retries.join("; ")],
  ].filter(([, value]) => value && value !== "–");
}

function seen({ sees, shortened, continues }) {
  const cut = shortened.length ? `, ${listed(shortened)} shortened to fit` : "";
  const base = continues == null ? "" : `, continues ${continues}`;
  return `${listed(sees)}${base}${cut}`;
}

function promptWords({ prompt_tokens: prompt, cached_tokens: cached }) {
  return `${count(prompt, "token")}, ${cached} of them cached`;
}

const CUTS = {
  budget: "cut by its budget",
  max_tokens: "cut by the answer's max_tokens",
};

function tokenWords({ tokens, answer_tokens: shown, cut }) {
  if (!cut) return count(tokens, "token");
  return `${count(tokens, "token")}, ${shown} in the answer: ${CUTS[cut]}`;
}
