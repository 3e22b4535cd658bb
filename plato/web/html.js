/** Components are written as in JSX, without a build step. */

import htm from "htm";
import { h } from "preact";
import { useEffect } from "preact/hooks";

export const html = htm.bind(h);

/** Name the page after a question, while it is shown. */
export function useTitle(question) {
  useEffect(() => {
    document.title = question ? `${question.slice(0, 60)} · Plato` : "Plato";
    return () => {
      document.title = "Plato";
    };
  }, [question]);
}
