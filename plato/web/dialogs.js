/** The key and the history, each in a dialog; and errors. */

import { key, request } from "plato/api.js";
import { html } from "plato/html.js";
import { useEffect, useRef, useState } from "preact/hooks";

const HISTORY = "plato.history";
const MOST = 50;

/** @param {{error: {message: string, param?: string | null}}} props */
export function ErrorNote({ error }) {
  return html`<p class="error" role="alert" dir="auto">${error.message}</p>`;
}

/** What was asked in this browser, newest first; the server lists runs by key alone. */
export const history = {
  /** @returns {{href: string, question: string, mode: string, created: number}[]} */
  all: () => JSON.parse(localStorage.getItem(HISTORY) ?? "[]"),
  add(entry) {
    // A comparison is first known by one of its runs.
    const others = history.all().filter(({ href }) => !entry.href.startsWith(href));
    localStorage.setItem(HISTORY, JSON.stringify([entry, ...others].slice(0, MOST)));
  },
  clear: () => localStorage.removeItem(HISTORY),
};

export function HistoryDialog({ onClose }) {
  const [entries, setEntries] = useState(history.all);
  const [error, setError] = useState(null);
  useEffect(() => {
    if (!key.get()) return;
    request(`v1/runs?limit=${MOST}`).then(
      ({ data }) => setEntries((known) => merged(known, data)),
      setError,
    );
  }, []);
  const forget = () => {
    history.clear();
    setEntries([]);
  };
  return html`
    <${Dialog} title="History" onClose=${onClose}>
      ${error && html`<${ErrorNote} error=${error} />`}
      ${!entries.length && html`<p class="muted">Nothing has been asked yet.</p>`}
      <ol class="history" role="list">
        ${entries.map(
          ({ href, question, mode, created }) => html`
            <li key=${href}>
              <a href=${href} onClick=${onClose}>
                <span dir="auto">${question}</span>
                <small>${mode} · ${new Date(1000 * created).toLocaleString()}</small>
              </a>
            </li>
          `,
        )}
      </ol>
      ${
        entries.length > 0 &&
        html`
          <button type="button" onClick=${forget}>
            Forget what this browser has asked
          </button>
        `
      }
    <//>
  `;
}

function merged(known, runs) {
  const found = new Map(known.map((entry) => [entry.href, entry]));
  for (const { id, question, mode, created } of runs) {
    const href = `#/runs/${id}`;
    found.set(href, { href, question, mode, created });
  }
  return [...found.values()].sort((a, b) => b.created - a.created);
}

export function KeyDialog({ onClose }) {
  const save = (event) => {
    event.preventDefault();
    key.set(event.currentTarget.elements.key.value);
    location.reload();
  };
  return html`
    <${Dialog} title="API key" onClose=${onClose}>
      <form onSubmit=${save}>
        <p class="muted">Kept until this tab is closed, and sent to this server alone.</p>
        <label>Key <input name="key" type="password" autocomplete="off" value=${key.get()} /></label>
        <button class="primary">Use</button>
      </form>
    <//>
  `;
}

function Dialog({ title, onClose, children }) {
  const dialog = useRef(null);
  useEffect(() => dialog.current.showModal(), []);
  const outside = (event) => event.target === dialog.current && dialog.current.close();
  return html`
    <dialog ref=${dialog} aria-labelledby="dialog-title" onClose=${onClose} onClick=${outside}>
      <div class="dialog">
        <h2 id="dialog-title">${title}</h2>
        <button type="button" class="quiet" onClick=${() => dialog.current.close()}>Close</button>
        ${children}
      </div>
    </dialog>
  `;
}
