/** This page as one file that holds recordings: the same modules, and no server. */

const POLICY =
  "default-src 'none'; script-src 'unsafe-inline' data:; style-src data:; img-src data:";

/**
 * @param {{run: any, events: any[]}[]} recordings
 * @returns {Promise<string>} HTML.
 */
export async function standalone(recordings) {
  const page = new DOMParser().parseFromString(await text(location.pathname), "text/html");
  const imports = page.querySelector("script[type=importmap]");
  const map = JSON.parse(imports.textContent);
  await Promise.all(
    Object.entries(map.imports).map(async ([name, path]) => {
      map.imports[name] = dataUrl("text/javascript", await text(path));
    }),
  );
  imports.textContent = JSON.stringify(map);

  await Promise.all(
    Array.from(page.querySelectorAll("link"), async (link) => {
      const type = link.rel === "icon" ? "image/svg+xml" : "text/css";
      link.setAttribute("href", dataUrl(type, await text(link.getAttribute("href"))));
    }),
  );

  const policy = page.createElement("meta");
  policy.httpEquiv = "Content-Security-Policy";
  policy.content = POLICY;
  page.head.prepend(policy);

  const data = page.createElement("script");
  data.type = "application/json";
  data.id = "recordings";
  // Inside a script only its end tag and comments mean something, and both begin with this.
  data.textContent = JSON.stringify(recordings).replaceAll("<", "\\u003c");
  const start = page.querySelector("script[type=module]");
  start.before(data);
  start.removeAttribute("src");
  start.textContent = 'import "plato/app.js";';
  return `<!doctype html>\n${page.documentElement.outerHTML}`;
}

async function text(path) {
  const response = await fetch(path);
  if (!response.ok) throw new Error(`${path}: ${response.status}`);
  return response.text();
}

function dataUrl(type, content) {
  const bytes = new TextEncoder().encode(content);
  return `data:${type};base64,${btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""))}`;
}
