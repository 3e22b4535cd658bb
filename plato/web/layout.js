/**
 * Places of parts in the drawing of a plan. A part's place follows from those before it alone, so
 * nothing moves while the plan grows.
 */

/**
 * @param {import("plato/run.js").Node[]} nodes In plan order.
 * @returns {{layers: number, rows: number, places: Map<number, {layer: number, row: number}>}}
 *   `layer` is one more than the deepest dependency's, `row` the order within the layer.
 */
export function layOut(nodes) {
  const places = new Map();
  const heights = [];
  for (const { number, dependencies } of nodes) {
    const depths = dependencies.map((dependency) => places.get(dependency)?.layer ?? -1);
    const layer = 1 + Math.max(-1, ...depths);
    heights[layer] = (heights[layer] ?? 0) + 1;
    places.set(number, { layer, row: heights[layer] - 1 });
  }
  return { layers: heights.length, rows: Math.max(0, ...heights), places };
}

const STEPS_S = [2, 4, 8, 12, 20, 40, 60, 120, 240, 400, 600, 1200, 2400, 3600];

/** The length of a time axis in quarters: it grows in a few steps, so that bars rarely move. */
export function axisEnd(seconds) {
  return STEPS_S.find((step) => step >= seconds) ?? seconds;
}
