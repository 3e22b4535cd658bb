"""The hub, as its client sees it: a small server that speaks its protocol."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from plato.settings import DEFAULT_MODEL

COMMIT = "0123456789abcdef0123456789abcdef01234567"
EARLIER = "76543210fedcba9876543210fedcba9876543210"
REVISIONS = {"main": COMMIT, COMMIT: COMMIT, "v1": EARLIER, EARLIER: EARLIER}

# The client reads its environment when it is imported, so each question is a process of its own.
ASK = """
import logging, sys
from plato.errors import ModelError
from plato.models import hub, resolve_model
hub.TIMEOUT_S = 0.5
logging.basicConfig(level="INFO", handlers=[logging.StreamHandler(sys.stdout)] * bool(sys.argv[2]))
try:
    progress = lambda what, share: print(f"{what} {share:.2f}")
    whole = {"weights": sys.argv[3] == "weights"}
    print(resolve_model(sys.argv[1], None, sys.argv[2] or None, progress, **whole))
except ModelError as error:
    print("error:", error)
"""


def ask(
    name: str,
    endpoint: str,
    home: Path,
    offline: bool = False,
    revision: str = "",
    weights: bool = True,
) -> list[str]:
    """Resolve `name` in a new process; returns what it printed, with its log for a revision."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": str(int(offline)),
        "HF_HUB_DISABLE_XET": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", ASK, name, revision, "weights" if weights else "tokenizer"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.splitlines()


class Hub(BaseHTTPRequestHandler):
    """One model, `some/model`, of which every revision has the files of `folder`."""

    folder: Path
    commit = ""

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        path = self.path.partition("?")[0]
        files = sorted(self.folder.iterdir())
        before, _, revision = path.partition("/some/model/")
        kind, _, revision = revision.partition("/")
        revision, _, name = revision.partition("/")
        self.commit = REVISIONS.get(revision, "")
        if path == "/api/models/some/model" or (kind == "revision" and self.commit):
            self.commit = self.commit or COMMIT
            siblings = [{"rfilename": file.name} for file in files]
            self._json({"id": "some/model", "sha": self.commit, "siblings": siblings}, body)
        elif kind == "tree" and self.commit:
            self._json([self._entry(file) for file in files], body)
        elif kind == "resolve" and self.commit and not before:
            file = self.folder / name
            self._send(200, file.read_bytes(), body, {"ETag": f'"{self._entry(file)["oid"]}"'})
        else:
            missing = "RevisionNotFound" if kind == "revision" else "RepoNotFound"
            self._send(404, b"{}", body, {"X-Error-Code": missing})

    @staticmethod
    def _entry(file: Path) -> dict[str, object]:
        content = file.read_bytes()
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        return {"type": "file", "path": file.name, "size": len(content), "oid": blob}

    def _json(self, content: object, body: bool) -> None:
        self._send(200, json.dumps(content).encode(), body, {"Content-Type": "application/json"})

    def _send(self, status: int, content: bytes, body: bool, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "X-Repo-Commit": self.commit}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Run a hub that has the model in `folder`; yields its address."""
    handler = type("Serving", (Hub,), {"folder": folder})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def silent_hub() -> Iterator[str]:
    """A hub that accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.slow
def test_a_model_is_downloaded_once_and_then_found_without_the_hub(
    tiny_model_folder: str, tmp_path: Path
) -> None:
    with serving(Path(tiny_model_folder)) as endpoint:
        *progress, folder = ask("some/model", endpoint, tmp_path)
    assert progress[0] == "downloading some/model 0.00"
    assert progress[-1] == "downloading some/model 1.00"
    weights = Path(folder) / "model.safetensors"
    assert weights.read_bytes() == (Path(tiny_model_folder) / weights.name).read_bytes()
    assert ask("some/model", endpoint, tmp_path) == [folder]
    assert ask("some/model", endpoint, tmp_path, offline=True) == [folder]


@pytest.mark.slow
def test_without_weights_only_the_small_files_are_downloaded(
    tiny_model_folder: str, tmp_path: Path
) -> None:
    with serving(Path(tiny_model_folder)) as endpoint:
        folder = ask("some/model", endpoint, tmp_path, weights=False)[-1]
        assert (Path(folder) / "tokenizer.json").is_file()
        assert not list(Path(folder).glob("*.safetensors"))
        assert ask("some/model", endpoint, tmp_path, offline=True, weights=False) == [folder]
        # Whoever needs the weights gets them later.
        assert ask("some/model", endpoint, tmp_path)[-1] == folder
    assert list(Path(folder).glob("*.safetensors"))


@pytest.mark.slow
def test_the_default_model_is_not_converted_for_its_tokenizer(tmp_path: Path) -> None:
    asked = DEFAULT_MODEL, "http://127.0.0.1:9", tmp_path
    answer = ask(*asked, offline=True, weights=False)[-1]
    assert "local folder with config.json, tokenizer.json" in answer or Path(answer).is_dir()


@pytest.mark.slow
def test_a_download_that_was_cut_short_is_finished(tiny_model_folder: str, tmp_path: Path) -> None:
    with serving(Path(tiny_model_folder)) as endpoint:
        folder = Path(ask("some/model", endpoint, tmp_path)[-1])
        (folder / "tokenizer.json").unlink()
        assert ask("some/model", endpoint, tmp_path)[-1] == str(folder)
    assert (folder / "tokenizer.json").exists()


def test_an_unknown_model_is_called_unknown(tiny_model_folder: str, tmp_path: Path) -> None:
    with serving(Path(tiny_model_folder)) as endpoint:
        *_, error = ask("some/typo", endpoint, tmp_path)
    assert error.startswith("error: the Hugging Face hub has no model 'some/typo'")
    assert "local folder" in error


@pytest.mark.slow
def test_a_model_without_safetensors_is_refused(tmp_path: Path) -> None:
    published = tmp_path / "published"
    published.mkdir()
    (published / "config.json").write_text('{"model_type": "llama"}')
    (published / "tokenizer.json").write_text("{}")
    (published / "pytorch_model.bin").write_bytes(b"x")
    with serving(published) as endpoint:
        *_, error = ask("some/model", endpoint, tmp_path / "home")
    assert error.startswith("error: the model folder")
    assert "has no *.safetensors" in error


@pytest.mark.slow
def test_a_hub_that_is_silent_is_given_up_soon(silent_hub: str, tmp_path: Path) -> None:
    *_, error = ask("some/model", silent_hub, tmp_path)
    assert "cannot be reached" in error
    assert "local folder" in error


@pytest.mark.slow
def test_offline_is_respected(tiny_model_folder: str, tmp_path: Path) -> None:
    with serving(Path(tiny_model_folder)) as endpoint:
        *_, error = ask("some/model", endpoint, tmp_path, offline=True)
    assert "cannot be reached" in error


@pytest.mark.slow
def test_every_process_has_the_commit_that_the_settings_name_and_logs_it(
    tiny_model_folder: str, tmp_path: Path
) -> None:
    with serving(Path(tiny_model_folder)) as endpoint:
        newest = ask("some/model", endpoint, tmp_path)[-1]
        assert Path(newest).name == COMMIT
        *log, folder = ask("some/model", endpoint, tmp_path, revision="v1")
        assert Path(folder).name == EARLIER
        logged = f"model some/model is at revision {EARLIER} of the hub"
        assert any(line.endswith(logged) for line in log)
        *_, error = ask("some/model", endpoint, tmp_path, revision="v2")
    assert "error: 'some/model' has no revision 'v2'; correct model_revision" in error
    # What is cached of another commit is no replacement.
    for revision, found in ((EARLIER, folder), ("", newest), (COMMIT, newest)):
        assert ask("some/model", endpoint, tmp_path, True, revision)[-1] == found
    assert ask("some/model", endpoint, tmp_path, True, "v2")[-1].startswith("error: ")


@pytest.mark.slow
def test_a_package_is_no_revision_of_the_default_model(tmp_path: Path) -> None:
    asked = DEFAULT_MODEL, "http://127.0.0.1:9", tmp_path
    assert "local folder" in ask(*asked, offline=True, revision="v1")[-1]
