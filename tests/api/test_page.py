"""What the page at `/` consists of, and how it is served; `tests/web` uses it in a browser."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from plato.api.page import FOLDER

# One event loop for all tests of the API: the model is loaded once.
pytestmark = pytest.mark.asyncio(loop_scope="package")

MAX_BYTES = 80_000
"""Of all that a browser loads, compressed."""
DEVELOPMENT = Path(__file__).parents[2] / "web"
VENDOR = FOLDER / "vendor"


def paths() -> Iterator[str]:
    """What the page names."""
    text = (FOLDER / "index.html").read_text()
    yield "/"
    yield from (f"/{path}" for path in re.findall(r'(?:href|src)="(.*?)"', text))
    yield from (path.removeprefix(".") for path in imports().values())


def imports() -> dict[str, str]:
    """The paths of all modules, by the names that they have in imports."""
    found = re.search(
        r'<script type="importmap">(.*?)</script>', (FOLDER / "index.html").read_text(), re.DOTALL
    )
    assert found is not None
    modules: dict[str, str] = json.loads(found[1])["imports"]
    return modules


async def test_all_of_it_is_small_and_the_servers_own(http: httpx.AsyncClient) -> None:
    size = 0
    for path in dict.fromkeys(paths()):
        served = await http.get(path)
        assert served.is_success, path
        policy = served.headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "unsafe" not in policy
        assert served.headers["x-content-type-options"] == "nosniff"
        assert served.headers["cache-control"] == "no-cache"
        size += int(served.headers["content-length"])
        if path.endswith(("js", "mjs")):
            assert "javascript" in served.headers["content-type"]
    assert size <= MAX_BYTES


async def test_it_is_not_sent_again_unless_it_has_changed(http: httpx.AsyncClient) -> None:
    etag = (await http.get("/web/app.js")).headers["etag"]
    again = await http.get("/web/app.js", headers={"If-None-Match": etag})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["cache-control"] == "no-cache"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/web/none.js", 404), ("GET", "/web/../api/page.py", 404), ("POST", "/", 405)],
)
async def test_what_is_not_there_is_an_error_as_any(
    http: httpx.AsyncClient, method: str, path: str, status: int
) -> None:
    refused = await http.request(method, path)
    assert refused.status_code == status
    assert refused.json()["error"]["type"] == "invalid_request_error"


async def test_it_is_no_part_of_the_api(http: httpx.AsyncClient) -> None:
    described = (await http.get("/openapi.json")).json()["paths"]
    assert not [path for path in described if path == "/" or path.startswith("/web")]


async def test_the_import_map_names_every_module() -> None:
    own = {f"plato/{path.name}": f"./web/{path.name}" for path in FOLDER.glob("*.js")}
    vendored = {
        f"./web/{path.relative_to(FOLDER)}"
        for path in VENDOR.rglob("*")
        if path.suffix in (".js", ".mjs")
    }
    assert own.items() <= imports().items()
    assert set(imports().values()) == vendored | set(own.values())


async def test_vendored_files_are_those_of_the_registry() -> None:
    packages = DEVELOPMENT / "node_modules"
    if not packages.exists():
        pytest.skip("needs the packages: run npm ci in web/")
    for path in filter(Path.is_file, VENDOR.rglob("*")):
        package = packages / path.relative_to(VENDOR).parts[0]
        same = [one for one in package.rglob(path.name) if one.read_bytes() == path.read_bytes()]
        assert same, path
