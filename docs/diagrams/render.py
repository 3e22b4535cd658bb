"""Renders the diagrams of this folder into docs/images.

    python docs/diagrams/render.py PATH/TO/mermaid.min.js

Needs chromium and the extra `browser`; CONTRIBUTING.md says how to get mermaid. The first line of a
picture has the hash of its source, which a test compares.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).parent
IMAGES = HERE.parent / "images"
CONFIG = {
    "startOnLoad": False,
    "theme": "neutral",
    # Text of SVG: as a picture of a page, an SVG shows no HTML in some viewers.
    "htmlLabels": False,
    "flowchart": {
        "htmlLabels": False,
        "wrappingWidth": 400,
        "rankSpacing": 25,
        "nodeSpacing": 40,
    },
    "themeCSS": ".edgeLabel rect { fill: #fff; opacity: 1; }",
    "fontFamily": "sans-serif",
}
RENDER = """async ([config, name, source]) => {
    mermaid.initialize(config);
    const { svg } = await mermaid.render(name, source);
    const page = new DOMParser().parseFromString(svg, "text/html").querySelector("svg");
    const [, , width, height] = page.getAttribute("viewBox").split(" ");
    page.setAttribute("width", Math.ceil(width));
    page.setAttribute("height", Math.ceil(height));
    page.style.background = "#fff";
    return new XMLSerializer().serializeToString(page);
}"""


def mark(source: str) -> str:
    """The first line of the picture of a diagram."""
    return f"<!-- of the diagram with SHA-256 {hashlib.sha256(source.encode()).hexdigest()} -->\n"


def main(script: Path) -> None:
    """Render all diagrams with this build of mermaid."""
    # Here: a test needs `mark` alone.
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = browser.new_page()
        page.add_script_tag(path=script)
        for diagram in sorted(HERE.glob("*.mmd")):
            source = diagram.read_text()
            svg = page.evaluate(RENDER, [CONFIG, diagram.stem, source])
            (IMAGES / f"{diagram.stem}.svg").write_text(f"{mark(source)}{svg}\n")
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
