"""The documentation builds without a warning, and has what the code has."""

from __future__ import annotations

import html
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from plato.api.runs.events import DESCRIBED_TYPES
from plato.cli import app
from plato.metrics import METRICS
from plato.settings import Settings
from tests.docs.pages import ROOT

pytest.importorskip("sphinx", reason="needs the extra 'docs'")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the pages."""
    folder = tmp_path_factory.mktemp("docs")
    command = (sys.executable, "-m", "sphinx", "-q", "-E", "-W", "--keep-going", "-b", "html")
    done = subprocess.run(
        [*command, "-d", str(folder / "trees"), "-c", "docs", ".", str(folder / "html")],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder / "html"


def text_of(page: Path) -> str:
    """What a page shows, without its markup."""
    return html.unescape(re.sub(r"<[^>]+>", "", page.read_text()))


def test_the_reference_has_everything(built: Path) -> None:
    reference = built / "docs" / "reference"
    settings = text_of(reference / "settings.html")
    assert [name for name in Settings.model_fields if name not in settings] == []
    metrics = text_of(reference / "metrics.html")
    assert [name for name in METRICS if name not in metrics] == []
    events = text_of(reference / "events.html")
    kinds = [kind.model_fields["type"].annotation.__args__[0] for kind in DESCRIBED_TYPES]
    assert [name for name in kinds if name not in events] == []
    command_line = text_of(reference / "command-line.html")
    names = get_command(app).commands
    assert [name for name in names if f"plato {name}" not in command_line] == []
    http = text_of(reference / "http.html")
    assert "POST /v1/chat/completions" in http
    assert "GET /v1/runs/{run_id}/events" in http


def test_links_of_the_pages_lead_somewhere(built: Path) -> None:
    broken = []
    for page in built.rglob("*.html"):
        for link in re.findall(r'<[^>]+\s(?:href|src)="([^"]+)"', page.read_text()):
            path = link.partition("#")[0].partition("?")[0]
            if re.match(r"[a-z]+:", link) or not path:
                continue
            if not (page.parent / path).is_file():
                broken.append(f"{page.relative_to(built)}: {link}")
    assert broken == []


def test_pages_load_nothing_from_elsewhere(built: Path) -> None:
    for page in built.rglob("*.html"):
        loaded = re.findall(r'<(?:script|img|iframe)[^>]+src="(https?:[^"]+)"', page.read_text())
        loaded += re.findall(r'<link rel="stylesheet"[^>]+href="(https?:[^"]+)"', page.read_text())
        assert loaded == [], page
