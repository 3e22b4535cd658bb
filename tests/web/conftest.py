"""A server with the default model, and chromium to look at its page with."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.end_to_end.server import Server
from tests.end_to_end.waiting import wait_until

QUESTION = "Compare solar, wind and nuclear power, and recommend one for an island."
PARTS = ["Solar power", "Wind power", "Nuclear power"]
PLAN: list[dict[str, Any]] = [
    *({"title": title} for title in PARTS),
    {"title": "Recommendation", "dependencies": [1, 2, 3]},
]
COMMAND = ("plato", "serve", "--embedded")
DESKTOP = {"width": 1280, "height": 860}
PHONE = {"width": 390, "height": 844}
WATCH = """
    window.shifted = 0;
    new PerformanceObserver((list) => {
        for (const entry of list.getEntries()) {
            if (!entry.hadRecentInput) window.shifted += entry.value;
        }
    }).observe({ type: "layout-shift", buffered: true });
"""
"""Adds up how far things have moved that nobody had just clicked on (web.dev, CLS)."""


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Debian's chromium."""
    found = shutil.which("chromium")
    if found is None:
        pytest.skip("needs chromium: apt-get install chromium")
    api = pytest.importorskip("playwright.sync_api", reason="needs the extra 'browser'")
    with api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture(scope="session")
def server(model_folder: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Greedy, and with answers that take seconds."""
    settings = {"served_model_name": "SmolLM2-135M-Instruct", "node_max_tokens": 120}
    folder = tmp_path_factory.mktemp("page")
    with Server(
        folder, COMMAND, model=model_folder, sequential_max_tokens=240, **settings
    ) as running:
        yield running


@pytest.fixture(scope="session")
def run(server: Server) -> dict[str, Any]:
    """A run that has ended: three parts, and one that needs them."""
    body = {
        "messages": [{"role": "user", "content": QUESTION}],
        "plato": {"mode": "plato", "plan": PLAN, "headings": True, "prompts": True},
    }
    created = httpx.post(f"{server.url}/v1/runs", json=body, timeout=30).raise_for_status()
    url = f"{server.url}/v1/runs/{created.json()['id']}"
    found: dict[str, Any] = {}

    def ended() -> bool:
        found.update(httpx.get(url, timeout=30).json())
        return bool(found["status"] != "running")

    wait_until(ended, 60, "the run has ended", every_s=0.2)
    assert found["status"] == "done"
    return found


@pytest.fixture
def opened(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens pages, each in a context of its own; whatever fails in them fails the test."""
    failures: list[str] = []
    contexts = []

    def open_page(url: str, **options: Any) -> Any:
        context = browser.new_context(**{"viewport": DESKTOP, "accept_downloads": True, **options})
        contexts.append(context)
        context.set_default_timeout(30_000)
        context.add_init_script(WATCH)
        page = context.new_page()
        page.on("pageerror", lambda error: failures.append(str(error)))
        page.on("console", lambda said: failures.append(said.text) if blamed(said) else None)
        page.goto(url)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert failures == []


def blamed(said: Any) -> bool:
    """Whether a console message is an error of the page; requests that fail are not."""
    return said.type == "error" and "Failed to load resource" not in said.text


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where screenshots go: to the documentation if PLATO_IMAGES says so."""
    chosen = os.environ.get("PLATO_IMAGES")
    return Path(chosen) if chosen else tmp_path_factory.mktemp("images")
