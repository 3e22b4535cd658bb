/** The page: its routes, and what is around them. */

import { request } from "plato/api.js";
import { Ask, bodyOf, EMPTY_DRAFT } from "plato/ask.js";
import { Compare } from "plato/compare.js";
import { ErrorNote, HistoryDialog, history, KeyDialog } from "plato/dialogs.js";
import { html } from "plato/html.js";
import { planOf } from "plato/plan_editor.js";
import { enclosed } from "plato/recording.js";
import { RunView } from "plato/run_view.js";
import { render } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";

const UNAUTHORIZED = 401;
const COMPARISON = "comparison";
const SECOND = "plato.second";

/** Outlives a reload of the tab. A file that replays needs none, and may have no storage. */
const secondQuestion = {
  /** @returns {{id: string, draft: import("plato/ask.js").Draft} | null} */
  get: () => (enclosed.length ? null : JSON.parse(sessionStorage.getItem(SECOND) ?? "null")),
  set(waiting) {
    if (!enclosed.length) sessionStorage.setItem(SECOND, JSON.stringify(waiting));
  },
};

function App() {
  const route = useRoute();
  const [draft, setDraft] = useState(EMPTY_DRAFT);
  const [dialog, setDialog] = useState(null);
  const [info, setInfo] = useState(null);
  const [error, setError] = useState(null);
  const main = useRef(null);
  /** The second question of a comparison, until it is asked. */
  const [waiting, setWaiting] = useState(secondQuestion.get);

  useEffect(() => {
    if (enclosed.length) return;
    request("v1/info").then(setInfo, (refused) => {
      if (refused.status === UNAUTHORIZED) setDialog("key");
      else setError(refused);
    });
  }, []);

  useEffect(() => secondQuestion.set(waiting), [waiting]);

  useEffect(() => {
    setError(null);
    // What had the focus is gone, except at first.
    if (document.activeElement === document.body && route.view !== "ask") {
      main.current.focus({ preventScroll: true });
    }
  }, [route]);

  /** Start a run; `path` is that of its view. */
  const start = async (body, path, mode) => {
    const { id, question, created } = await request("v1/runs", { method: "POST", body });
    const href = `${path}${id}`;
    history.add({ href, question, mode, created });
    return { id, href };
  };
  const ask = async (asked, compare) => {
    const { id, href } = compare
      ? await start(bodyOf(asked, "sequential"), "#/compare/", COMPARISON)
      : await start(bodyOf(asked, asked.mode), "#/runs/", asked.mode);
    setWaiting(compare ? { id, draft: asked } : null);
    location.hash = href;
  };
  const askSecond = async () => {
    try {
      const mode = waiting.draft.mode === "skeleton" ? "skeleton" : "plato";
      setWaiting(null);
      const path = `#/compare/${waiting.id}/`;
      const { href } = await start(bodyOf(waiting.draft, mode), path, COMPARISON);
      location.replace(href);
    } catch (refused) {
      setError(refused);
    }
  };
  const askAgain = (run, nodes) => {
    const plan = run.plato.mode === "sequential" ? null : planOf(nodes);
    setDraft({ ...draft, question: run.question, mode: run.options.mode, plan });
    location.hash = "#/";
  };

  return html`
    <${Bar} info=${info} onOpen=${setDialog} />
    <main ref=${main} tabindex="-1" data-view=${route.view}>
      ${error && html`<${ErrorNote} error=${error} />`}
      ${route.view === "ask" && html`<${Ask} draft=${draft} onChange=${setDraft} onAsk=${ask} info=${info} />`}
      ${route.view === "runs" && html`<${RunView} key=${route.ids[0]} id=${route.ids[0]} onAskAgain=${askAgain} />`}
      ${
        route.view === "compare" &&
        html`
          <${Compare}
            key=${route.ids[0]}
            first=${route.ids[0]}
            second=${route.ids[1] ?? null}
            askSecond=${waiting?.id === route.ids[0] ? askSecond : null}
          />
        `
      }
    </main>
    ${dialog === "history" && html`<${HistoryDialog} onClose=${() => setDialog(null)} />`}
    ${dialog === "key" && html`<${KeyDialog} onClose=${() => setDialog(null)} />`}
  `;
}

function Bar({ info, onOpen }) {
  return html`
    <header class="masthead">
      <a class="brand" href="#/">Plato</a>
      ${
        enclosed.length > 0
          ? html`<span class="muted">a recording</span>`
          : html`
            <span class="muted model">${info?.model}</span>
            <nav aria-label="Page">
              <a href="#/">New question</a>
              <button type="button" class="quiet" onClick=${() => onOpen("history")}>History</button>
              <button type="button" class="quiet" onClick=${() => onOpen("key")}>Key</button>
            </nav>
          `
      }
    </header>
  `;
}

/** `#/`, `#/runs/ID`, `#/compare/ID` and `#/compare/ID/ID`. */
function useRoute() {
  const [route, setRoute] = useState(read);
  useEffect(() => {
    const follow = () => setRoute(read());
    addEventListener("hashchange", follow);
    return () => removeEventListener("hashchange", follow);
  }, []);
  return route;
}

function read() {
  if (enclosed.length) {
    return {
      view: enclosed.length > 1 ? "compare" : "runs",
      ids: enclosed.map(({ run }) => run.id),
    };
  }
  const [view, ...ids] = location.hash.replace(/^#\/?/, "").split("/");
  const known = ids[0] && ["runs", "compare"].includes(view);
  return known ? { view, ids: ids.map(encodeURIComponent) } : { view: "ask", ids: [] };
}

render(html`<${App} />`, document.body);
