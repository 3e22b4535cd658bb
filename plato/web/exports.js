/** A run as a file: JSON, Markdown, a Chrome trace, or a page that replays it without a server. */

import { ErrorNote } from "plato/dialogs.js";
import { html } from "plato/html.js";
import { enclosed } from "plato/recording.js";
import { fold } from "plato/run.js";
import { cachedShare, listed, seconds } from "plato/words.js";
import { useState } from "preact/hooks";

const FORMATS = [
  { name: "JSON", ending: "json", type: "application/json", write: asJson },
  { name: "Markdown", ending: "md", type: "text/markdown", write: asMarkdown },
  { name: "Chrome trace", ending: "trace.json", type: "application/json", write: asTrace },
  { name: "Page that replays", ending: "html", type: "text/html", write: asPage },
];

/** @param {{recordings: import("plato/recording.js").Recording[]}} props */
export function ExportMenu({ recordings }) {
  const kept = recordings.map(({ run, events }) => ({ run, events }));
  // A page that replays is one itself, and has no server to make another of.
  const formats = enclosed.length ? FORMATS.slice(0, -1) : FORMATS;
  const [error, setError] = useState(null);
  const save = async (event, { ending, type, write }) => {
    event.currentTarget.closest("details").open = false;
    try {
      download(`plato-${kept[0].run.id}.${ending}`, type, await write(kept));
    } catch (failure) {
      setError(failure);
    }
  };
  const leave = ({ currentTarget, relatedTarget }) => {
    if (!currentTarget.contains(relatedTarget)) currentTarget.open = false;
  };
  return html`
    <details class="menu" onFocusOut=${leave}>
      <summary>Export</summary>
      <ul role="list">
        ${formats.map(
          (format) => html`
            <li><button type="button" class="quiet" onClick=${(event) => save(event, format)}>${format.name}</button></li>
          `,
        )}
      </ul>
    </details>
    ${error && html`<${ErrorNote} error=${error} />`}
  `;
}

function download(name, type, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

function asJson(recordings) {
  return JSON.stringify(recordings, null, 1);
}

/** Loaded when it is needed: the page is at most 80 kB. */
async function asPage(recordings) {
  const { standalone } = await import("plato/standalone.js");
  return standalone(recordings);
}

function asMarkdown(recordings) {
  return recordings.map(runAsMarkdown).join("\n---\n\n");
}

function runAsMarkdown({ run, events }) {
  const { mode, timings, usage } = run.plato;
  const rows = fold(events).nodes.map((node) => [
    node.number,
    node.title.replaceAll("|", "\\|"),
    listed(node.dependencies),
    seconds(node.started_s),
    seconds(node.finished_s),
    node.tokens,
    cachedShare(node),
  ]);
  const table = [
    ["part", "title", "needs", "start", "end", "tokens", "prompt"],
    Array(7).fill("---"),
    ...rows,
  ];
  return [
    `# ${run.question.split("\n")[0]}`,
    run.answer,
    "---",
    `${run.model}, ${mode}, ${seconds(timings.duration_s)}, ${usage.output_tokens} tokens`,
    table.map((cells) => `| ${cells.join(" | ")} |`).join("\n"),
    "",
  ].join("\n\n");
}

/** For chrome://tracing and ui.perfetto.dev: a process a run, a thread a part. */
function asTrace(recordings) {
  const traceEvents = recordings.flatMap(({ run, events }, index) => {
    const pid = index + 1;
    const span = (tid, name, from, to, args = {}) =>
      from != null && to > from
        ? [{ ph: "X", pid, tid, name, ts: 1e6 * from, dur: 1e6 * (to - from), args }]
        : [];
    const named = (tid, name) => ({ ph: "M", pid, tid, name: "thread_name", args: { name } });
    const { plan, nodes } = fold(events);
    return [
      { ph: "M", pid, name: "process_name", args: { name: `${run.plato.mode}: ${run.question}` } },
      named(0, "plan"),
      ...(plan?.tokens ? span(0, "plan", plan.started_s, plan.finished_s, plan) : []),
      ...nodes.flatMap(({ text, prompt, ...node }) => {
        const { number, title, planned_s, started_s, taken_s, first_token_s, finished_s } = node;
        const taken = taken_s ?? started_s;
        return [
          named(number, `${number} ${title}`),
          ...span(number, "waits", planned_s, taken),
          ...span(number, "prefill", taken, first_token_s),
          ...span(number, "decode", first_token_s, finished_s, node),
        ];
      }),
    ];
  });
  return JSON.stringify({ displayTimeUnit: "ms", traceEvents });
}
