/**
 * The state of a run, folded from its events as `plato.runs.state` does it on the server.
 *
 * Pure: the state at any time is a fold of the events until then, so a replay shows what was seen.
 *
 * @typedef {"planned" | "queued" | "running" | "done" | "failed" | "cancelled"} NodeState
 *
 * @typedef {object} Node A part: its report (see `NodeReport` in the API), and what only events say.
 * @property {number} number
 * @property {string} title
 * @property {number[]} dependencies
 * @property {NodeState} state
 * @property {number} planned_s
 * @property {number | null} started_s When it was dispatched.
 * @property {number | null} taken_s When a decoder took it.
 * @property {number | null} first_token_s
 * @property {number | null} finished_s
 * @property {number} tokens
 * @property {string} text
 * @property {string} [prompt]
 * @property {string[]} retries Why it was dispatched again, each time.
 *
 * @typedef {object} State
 * @property {string | null} mode
 * @property {string | null} reason
 * @property {any} plan
 * @property {boolean} planComplete
 * @property {Node[]} nodes In plan order.
 * @property {string} answer The text so far.
 * @property {number | null} firstTextS
 * @property {any} run The run object, once it has ended.
 */

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** Seconds from the start of its run to an event. */
export function timeOf(event) {
  return event.at_s ?? event.run.plato.timings.duration_s;
}

/**
 * @param {any[]} events In order.
 * @param {number} untilS
 * @returns {State}
 */
export function fold(events, untilS = Infinity) {
  const folded = new Fold();
  for (const event of events) {
    if (timeOf(event) > untilS) break;
    folded.feed(event);
  }
  return folded.state();
}

class Fold {
  #nodes = new Map();
  #answer = "";
  #bytes = 0;
  #mode = null;
  #reasons = new Set();
  #plan = null;
  #planComplete = false;
  #firstTextS = null;
  #run = null;

  feed(event) {
    const at = timeOf(event);
    switch (event.type) {
      case "mode_chosen":
        // Nodes of a plan that was abandoned do not count.
        if (event.mode === "sequential") this.#nodes.clear();
        this.#mode = event.mode;
        this.#reasons.add(event.reason);
        break;
      case "node_planned":
        Object.assign(this.#node(event.node.number), event.node, { planned_s: at });
        this.#plan = event.plan ?? this.#plan;
        break;
      case "plan_finished":
        this.#plan = event.report;
        this.#planComplete = true;
        this.#reasons.add(event.reason);
        break;
      case "node_queued":
        this.#begin(event);
        break;
      case "node_started":
        Object.assign(this.#node(event.number), event.report, { taken_s: at });
        break;
      case "node_output":
        this.#take(event, at);
        break;
      case "node_finished":
      case "node_failed":
      case "node_cancelled":
        Object.assign(this.#node(event.number), event.report);
        break;
      case "run_finished":
      case "run_failed":
        this.#end(event.run);
        return;
    }
    this.#release(event, at);
  }

  /** @returns {State} */
  state() {
    const nodes = [...this.#nodes.values()].sort((a, b) => a.number - b.number);
    return {
      mode: this.#mode,
      reason: [...this.#reasons].filter(Boolean).join("; ") || null,
      plan: this.#plan,
      planComplete: this.#planComplete,
      nodes: nodes.map(({ pieces, ...node }) => ({
        ...node,
        text: pieces.map((p) => p.text).join(""),
      })),
      answer: this.#answer,
      firstTextS: this.#firstTextS,
      run: this.#run,
    };
  }

  #node(number) {
    if (!this.#nodes.has(number)) {
      this.#nodes.set(number, {
        number,
        title: "",
        dependencies: [],
        state: "planned",
        planned_s: 0,
        started_s: null,
        taken_s: null,
        first_token_s: null,
        finished_s: null,
        tokens: 0,
        pieces: [],
        retries: [],
      });
    }
    return this.#nodes.get(number);
  }

  #begin(event) {
    const node = this.#node(event.number);
    if (event.restarts) node.pieces = [];
    if (event.attempt > 0) node.retries = [...node.retries, event.reason ?? "another decoder"];
    Object.assign(node, event.report, { taken_s: null });
  }

  /** Outputs can overlap after a retry: the later one counts. What leaves a gap is ignored. */
  #take(event, at) {
    const node = this.#node(event.number);
    const last = node.pieces.at(-1);
    const known = last ? last.end : 0;
    const end = event.offset + event.tokens.length;
    if (event.offset > known || end < known) return;
    if (event.offset < known) node.pieces = node.pieces.filter((p) => p.end <= event.offset);
    node.pieces.push({ end, text: event.node_text });
    node.tokens = end;
    node.cached_tokens = event.cached_tokens;
    node.first_token_s ??= at;
  }

  /** `text_offset` counts bytes; after a takeover some text comes again. */
  #release({ text, text_offset: offset }, at) {
    if (!text || offset > this.#bytes) return;
    if (offset < this.#bytes) {
      this.#answer = decoder.decode(encoder.encode(this.#answer).slice(0, offset));
    }
    this.#answer += text;
    this.#bytes = offset + encoder.encode(text).length;
    this.#firstTextS ??= at;
  }

  #end(run) {
    this.#run = run;
    this.#answer = run.answer;
    this.#mode = run.plato.mode;
    this.#reasons = new Set([run.plato.reason]);
    this.#plan = run.plato.plan;
    this.#planComplete = true;
    this.#firstTextS = run.plato.timings.first_text_s;
    for (const report of run.plato.graph.nodes) {
      Object.assign(this.#node(report.number), report);
    }
  }
}
