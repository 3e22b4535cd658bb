/** The drawing of a plan: a column for each layer, and lines from parts to those that need them. */

import { html } from "plato/html.js";
import { layOut } from "plato/layout.js";
import { cachedShare, count, listed, marks, stateWords } from "plato/words.js";

/** Share of a cell that its card takes; the rest is for lines. */
const CARD = { width: 0.8, height: 0.82 };

/**
 * @param {object} props
 * @param {import("plato/run.js").Node[]} props.nodes
 * @param {number | null} [props.selected]
 * @param {(number: number) => void} [props.onSelect] Without it, the drawing only shows.
 */
export function Graph({ nodes, selected, onSelect }) {
  const { layers, rows, places } = layOut(nodes);
  const done = new Set(nodes.filter(({ state }) => state === "done").map(({ number }) => number));
  const size = {
    "--layers": layers,
    "--rows": rows,
    "--card-width": CARD.width,
    "--card-height": CARD.height,
  };
  return html`
    <div class="graph" style=${size}>
      <svg aria-hidden="true" viewBox="0 0 ${layers || 1} ${rows || 1}" preserveAspectRatio="none">
        ${nodes.flatMap(({ number, dependencies }) =>
          dependencies
            .filter((dependency) => places.has(dependency))
            .map((dependency) => {
              const near = selected === number || selected === dependency;
              return html`<path
                key=${`${dependency}-${number}`}
                class="edge"
                data-done=${done.has(dependency)}
                data-near=${near}
                d=${line(places.get(dependency), places.get(number))}
              />`;
            }),
        )}
      </svg>
      <ol role="list">
        ${nodes.map((node) => {
          const { layer, row } = places.get(node.number);
          return html`
            <li key=${node.number} style=${{ "--layer": layer, "--row": row }}>
              <${Card} node=${node} selected=${selected === node.number} onSelect=${onSelect} />
            </li>
          `;
        })}
      </ol>
    </div>
  `;
}

function Card({ node, selected, onSelect }) {
  const needs = node.dependencies.length ? `needs ${listed(node.dependencies)}` : "";
  // The lines show it, too, and there is little room.
  const facts = node.tokens ? [count(node.tokens, "token"), ...marks(node)] : [needs];
  const shown = html`
    <span class="card-title">
      <${StateIcon} state=${node.state} /> <b>${node.number}</b> <span dir="auto">${node.title}</span>
    </span>
    <span class="card-facts">${facts.join(" · ")}</span>
  `;
  if (!onSelect) return html`<div class="card" data-state=${node.state}>${shown}</div>`;
  return html`
    <button
      type="button"
      class="card"
      id="part-${node.number}"
      data-state=${node.state}
      aria-pressed=${selected}
      title=${[node.title, needs, cachedShare(node)].filter(Boolean).join(" · ")}
      onClick=${() => onSelect(node.number)}
    >
      ${shown}<span class="unseen">, ${stateWords(node.state)}</span>
    </button>
  `;
}

/** A curve; one that passes other layers runs between two rows of cards. */
function line(from, to) {
  const [x1, x2] = [from.layer + CARD.width, to.layer];
  const [y1, y2] = [from.row + CARD.height / 2, to.row + CARD.height / 2];
  if (to.layer === from.layer + 1) {
    const middle = (x1 + x2) / 2;
    return `M${x1} ${y1}C${middle} ${y1} ${middle} ${y2} ${x2} ${y2}`;
  }
  const gap = 1 - CARD.width;
  const y = Math.min(from.row, to.row) + (1 + CARD.height) / 2;
  const [begin, end] = [x1 + gap / 2, x2 - gap / 2];
  return (
    `M${x1} ${y1}C${begin} ${y1} ${begin} ${y} ${x1 + gap} ${y}` +
    `L${x2 - gap} ${y}C${end} ${y} ${end} ${y2} ${x2} ${y2}`
  );
}

const ICONS = {
  planned: () => html`<circle cx="8" cy="8" r="6" stroke-dasharray="2.4 2.3" />`,
  queued: () => html`<circle cx="8" cy="8" r="6" /><path d="M8 4.8V8l2.2 1.4" />`,
  running: () => html`<circle cx="8" cy="8" r="6" /><circle class="pulse" cx="8" cy="8" r="3" />`,
  done: () =>
    html`<circle class="full" cx="8" cy="8" r="6.7" /><path class="on" d="m5.2 8.2 2 2 3.6-4.1" />`,
  failed: () =>
    html`<circle class="full" cx="8" cy="8" r="6.7" /><path class="on" d="m5.8 5.8 4.4 4.4m0-4.4-4.4 4.4" />`,
  cancelled: () => html`<circle cx="8" cy="8" r="6" /><path d="m4 12 8-8" />`,
};

/** States differ in shape, too, not only in colour. */
export function StateIcon({ state }) {
  return html`
    <svg class="state-icon" data-state=${state} viewBox="0 0 16 16" aria-hidden="true">
      ${ICONS[state]()}
    </svg>
  `;
}
