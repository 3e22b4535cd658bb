/** Text of a model, which nobody has checked, as HTML that cannot do anything. */

import "dompurify";
import { Marked } from "marked";
import { html } from "plato/html.js";
import { useMemo } from "preact/hooks";

/** The module that is minified, which is a third in size, defines a global. */
const { DOMPurify } = /** @type {any} */ (globalThis);

const marked = new Marked({
  gfm: true,
  renderer: {
    // Below the headings of the page.
    heading({ tokens, depth }) {
      const level = depth <= 2 ? 3 : 4;
      return `<h${level}>${this.parser.parseInline(tokens)}</h${level}>`;
    },
    // Shown as written: models write tags of their own, such as <think>.
    html({ text }) {
      return quoted(text);
    },
  },
});

const ALLOWED = {
  ALLOWED_TAGS: [
    ..."p br hr h3 h4 strong em del a code pre blockquote ul ol li".split(" "),
    ..."table thead tbody tr th td".split(" "),
  ],
  ALLOWED_ATTR: ["align", "href", "rel", "start", "target"],
};

DOMPurify.addHook("afterSanitizeAttributes", (element) => {
  if (element.tagName !== "A") return;
  element.setAttribute("rel", "noopener noreferrer nofollow");
  element.setAttribute("target", "_blank");
});

/** @param {{text: string}} props */
export function Markdown({ text }) {
  const safe = useMemo(() => DOMPurify.sanitize(marked.parse(text), ALLOWED), [text]);
  return html`<div class="prose" dir="auto" dangerouslySetInnerHTML=${{ __html: safe }} />`;
}

function quoted(text) {
  return text.replace(/[&<>"]/g, (character) => `&#${character.charCodeAt(0)};`);
}
