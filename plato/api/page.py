"""The page at `/`, for people: the static files of `plato/web`, which use the API as any client."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

FOLDER = Path(__file__).parent.parent / "web"
_IMPORT_MAP = re.compile(r'<script type="importmap">(.*?)</script>', re.DOTALL)


def page_routes() -> list[BaseRoute]:
    """`/`, and below `/web` what it consists of. Everybody may read it; the API asks for keys."""
    files = GZipMiddleware(_PageFiles(directory=FOLDER, html=True))
    return [Route("/", files, include_in_schema=False), Mount("/web", files)]


class _PageFiles(StaticFiles):
    """Static files with a policy for browsers: nothing but this server's own."""

    def __init__(self, *, directory: Path, html: bool) -> None:
        super().__init__(directory=directory, html=html)
        (import_map,) = _IMPORT_MAP.findall((directory / "index.html").read_text("utf-8"))
        digest = base64.b64encode(hashlib.sha256(import_map.encode()).digest()).decode()
        policy = (
            "default-src 'self'",
            # The import map has to be in the page.
            f"script-src 'self' 'sha256-{digest}'",
            "object-src 'none'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
        self._headers = {
            "Content-Security-Policy": "; ".join(policy),
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            # Asked for again each time, by ETag: modules of two versions do not fit together.
            "Cache-Control": "no-cache",
        }

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Called by Starlette."""
        response = await super().get_response(path, scope)
        response.headers.update(self._headers)
        return response
