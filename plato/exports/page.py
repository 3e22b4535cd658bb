"""A run as one file: the page at `/` with the run in it, which replays without a server.

The same file as `plato/web/standalone.js` makes in a browser.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from pathlib import Path

from plato.exports.recording import Recording

FOLDER = Path(__file__).parent.parent / "web"
POLICY = "default-src 'none'; script-src 'unsafe-inline' data:; style-src data:; img-src data:"
TYPES = {".js": "text/javascript", ".mjs": "text/javascript"} | {
    ".css": "text/css",
    ".svg": "image/svg+xml",
}
_FILE = re.compile(r'"(?:\./)?web/([^"]+)"')
"""In the import map and in links: a file of the page."""
_START = '<script type="module" src="web/app.js"></script>'
_HEAD = "<head>"


def to_page(recordings: Sequence[Recording]) -> str:
    """The page as HTML; it shows the first of `recordings`, and compares if there are two."""
    page = (FOLDER / "index.html").read_text("utf-8")
    # Inside a script only its end tag and comments mean something, and both begin with this.
    data = json.dumps([each.as_json() for each in recordings]).replace("<", "\\u003c")
    start = (
        f'<script type="application/json" id="recordings">{data}</script>\n'
        '    <script type="module">import "plato/app.js";</script>'
    )
    policy = f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    before, found, after = page.partition(_START)
    if not found:
        raise AssertionError("index.html has no start script")
    page = _FILE.sub(lambda file: f'"{_data_url(FOLDER / file[1])}"', before) + start + after
    return page.replace(_HEAD, f"{_HEAD}\n    {policy}", 1)


def _data_url(file: Path) -> str:
    content = base64.b64encode(file.read_bytes()).decode()
    return f"data:{TYPES[file.suffix]};base64,{content}"
