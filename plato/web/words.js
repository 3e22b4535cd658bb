/** Numbers and states in words. */

const STATES = {
  planned: "waits for other parts",
  queued: "waits for a decoder",
  running: "is written",
  done: "done",
  failed: "failed",
  cancelled: "cancelled",
};

export function stateWords(state) {
  return STATES[state] ?? state;
}

export function nameOf({ number, title }) {
  return `${number} ${title}`;
}

/** Seconds, with one decimal below 100. */
export function seconds(value) {
  if (value == null) return "–";
  return `${value < 100 ? value.toFixed(1) : Math.round(value)} s`;
}

export function count(value, noun) {
  return `${value.toLocaleString("en")} ${noun}${value === 1 ? "" : "s"}`;
}

/** Tokens a second, or nothing if nobody can know yet. */
export function rate(tokens, duration) {
  return duration > 0.05 ? `${(tokens / duration).toFixed(1)} tokens/s` : "";
}

/** Ascending numbers, three or more in a row as a range: `1, 2, 4-7`. */
export function listed(numbers) {
  const rows = [];
  for (const number of numbers) {
    const row = rows.at(-1);
    if (row && row.at(-1) === number - 1) row.push(number);
    else rows.push([number]);
  }
  return rows.flatMap((row) => (row.length < 3 ? row : [`${row[0]}-${row.at(-1)}`])).join(", ");
}

/** What is special about a part, a word or two each; most have nothing. */
export function marks(node) {
  const found = [];
  if (node.cut) found.push(node.answer_tokens ? "cut" : "left out");
  if (node.retries.length)
    found.push(node.retries.length > 1 ? `retried ${node.retries.length} times` : "retried");
  return found;
}

export function cachedShare(node) {
  if (!node.prompt_tokens || node.first_token_s == null) return "";
  return `${Math.round((100 * node.cached_tokens) / node.prompt_tokens)} % cached`;
}
