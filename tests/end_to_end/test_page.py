"""The page, also behind the proxies of Ray Serve."""

from __future__ import annotations

import httpx
import pytest


@pytest.mark.parametrize("path", ["/", "/web/app.js", "/web/vendor/marked/marked.esm.js"])
def test_the_page_is_served_as_by_one_process(http: httpx.Client, path: str) -> None:
    served = http.get(path)
    assert served.status_code == httpx.codes.OK
    assert served.headers["content-encoding"] == "gzip"
    assert "default-src 'self'" in served.headers["content-security-policy"]
    again = http.get(path, headers={"If-None-Match": served.headers["etag"]})
    assert again.status_code == httpx.codes.NOT_MODIFIED
