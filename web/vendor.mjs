// Copies the modules that the page needs from node_modules, with their licenses, as they are.
import { cpSync, mkdirSync, rmSync } from "node:fs";
import { basename, dirname, join } from "node:path";

const FILES = [
  "dompurify/dist/purify.min.js",
  "dompurify/LICENSE",
  "eventsource-parser/dist/index.js",
  "eventsource-parser/LICENSE",
  "htm/dist/htm.module.js",
  "htm/LICENSE",
  "marked/lib/marked.esm.js",
  "marked/LICENSE",
  "preact/dist/preact.mjs",
  "preact/hooks/dist/hooks.mjs",
  "preact/LICENSE",
];
const from = join(import.meta.dirname, "node_modules");
const to = join(import.meta.dirname, "../plato/web/vendor");

rmSync(to, { recursive: true, force: true });
for (const file of FILES) {
  const target = join(to, file.split("/")[0], basename(file));
  mkdirSync(dirname(target), { recursive: true });
  cpSync(join(from, file), target);
}
