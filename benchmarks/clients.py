"""Does every client that people use get an answer?

    python -m benchmarks.clients [--json FILE] [NAME ...]

Each client of `examples/clients.toml` is installed into an environment of its own, and its examples
run against `plato serve --embedded` with the default model. With names, the rows of other clients
that are in the file are kept.

An example prints `--- what it does` in front of what comes of it. It has failed there if nothing
comes, or if its process fails.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
import venv
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.common.report import Report, arguments
from benchmarks.common.serving import serving
from plato.settings import Settings

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
NODE = EXAMPLES / "node"
ENVIRONMENTS = ROOT / ".clients"
INSTALL_DEADLINE_S = 900.0
EXAMPLE_DEADLINE_S = 180.0
HEADING = "--- "
MAX_OUTPUT_CHARS = 400
MAX_LINE = 1 << 20
Lines = list[tuple[float, str]]
"""Of an example's output, and when they came: seconds since its start."""


@dataclass(frozen=True, slots=True)
class Client:
    """A client of `clients.toml`."""

    name: str
    examples: tuple[str, ...]
    python: tuple[str, ...] = ()
    """Packages with their versions; the first is the client."""
    node: str | None = None
    """Package in `examples/node/package-lock.json`."""

    @property
    def folder(self) -> Path:
        """Its environment, if it is one of Python."""
        return ENVIRONMENTS / self.name

    @property
    def version(self) -> str:
        """Its version."""
        if self.python:
            return self.python[0].partition("==")[2]
        if self.node is not None:
            packages = json.loads((NODE / "package-lock.json").read_text())["packages"]
            return str(packages[f"node_modules/{self.node}"]["version"])
        told = subprocess.run([self.name, "--version"], capture_output=True, text=True, check=True)
        return told.stdout.split()[1]

    def install(self) -> None:
        """Install it, unless it is there. Raises `CalledProcessError`."""
        if self.python and _is_stale(self.folder / "installed", " ".join(self.python)):
            venv.create(self.folder, with_pip=True, clear=True)
            _install(self.folder / "bin" / "python", "-m", "pip", "install", "-q", *self.python)
            (self.folder / "installed").write_text(" ".join(self.python))
        lock, copy = NODE / "package-lock.json", NODE / "node_modules" / "installed"
        if self.node is not None and _is_stale(copy, lock.read_text()):
            _install("npm", "ci", "--no-audit", "--no-fund", "--prefix", NODE)
            copy.write_text(lock.read_text())

    def command(self, example: str) -> tuple[str, ...]:
        """Runs one of its examples."""
        path = str(EXAMPLES / example)
        if example.endswith(".py"):
            # Unbuffered, so that its steps can be timed.
            return str(self.folder / "bin" / "python"), "-u", path
        return "bash" if example.endswith(".sh") else "node", path


def main() -> None:
    """Run the examples."""
    parser = arguments("clients", __doc__ or "")
    parser.add_argument("names", nargs="*", metavar="NAME", help="clients; default: all")
    options = parser.parse_args()
    clients = read_clients()
    unknown = set(options.names) - {client.name for client in clients}
    if unknown:
        parser.error(f"no such client: {', '.join(sorted(unknown))}; see examples/clients.toml")
    clients = [client for client in clients if client.name in options.names or not options.names]
    for client in clients:
        client.install()
    settings = Settings()
    with serving(settings, embedded=True) as server:
        rows = [
            row
            for client in clients
            for example in client.examples
            for row in asyncio.run(run(client, example, f"{server.url}/v1"))
        ]
    if options.names and options.json is not None and options.json.exists():
        asked = {row["client"] for row in rows}
        kept = json.loads(options.json.read_text(encoding="utf-8"))["rows"]
        rows = [row for row in kept if row["client"] not in asked] + rows
    failures = sum(row["result"] != "ok" for row in rows)
    metrics = {
        "clients": len({row["client"] for row in rows}),
        "steps": len(rows),
        "failures": failures,
    }
    Report("clients", settings.model_name, {}, metrics, rows).write(options.json)
    sys.exit(bool(failures))


def read_clients() -> list[Client]:
    """The clients of `clients.toml`."""
    described = tomllib.loads((EXAMPLES / "clients.toml").read_text(encoding="utf-8"))
    return [
        Client(
            name,
            tuple(fields["examples"]),
            tuple(fields.get("python", ())),
            fields.get("node"),
        )
        for name, fields in described.items()
    ]


async def run(client: Client, example: str, url: str) -> list[dict[str, Any]]:
    """Run an example against the server at `url`; one row for each step."""
    path = f"{client.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "OPENAI_BASE_URL": url, "OPENAI_API_KEY": "any"}
    lines: Lines = []
    with tempfile.TemporaryFile() as errors:
        process = await asyncio.create_subprocess_exec(
            *client.command(example),
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment,
            limit=MAX_LINE,
            # A group of its own, to end what it has started too.
            process_group=0,
        )
        began = time.perf_counter()
        try:
            async with asyncio.timeout(EXAMPLE_DEADLINE_S):
                assert process.stdout is not None
                async for line in process.stdout:
                    lines.append((time.perf_counter() - began, line.decode(errors="replace")))
                status = await process.wait()
        except TimeoutError:
            status = -signal.SIGKILL
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        errors.seek(0)
        reason = errors.read().decode(errors="replace").strip().splitlines()[-1:]
    failure = None if status == 0 else " ".join(reason) or f"exit status {status}"
    rows = []
    for step in steps(lines, time.perf_counter() - began, failure):
        rows.append({"client": client.name, "version": client.version, "example": example, **step})
        sys.stderr.write("{client} {version}: {did}: {result} ({seconds} s)\n".format(**rows[-1]))
    return rows


def steps(lines: Lines, ended_s: float, failure: str | None) -> Iterator[dict[str, Any]]:
    """What an example did, with the result of each step; `failure` is that of the last."""
    starts = [index for index, (_, line) in enumerate(lines) if line.startswith(HEADING)]
    if not starts:
        yield _step("start", failure or "it says nothing", ended_s, "")
    for start, end in pairwise([*starts, len(lines)]):
        at_s, heading = lines[start]
        output = re.sub(r"\s+", " ", "".join(line for _, line in lines[start + 1 : end])).strip()
        result = "ok" if output else "no output"
        if end == len(lines):
            result = failure or result
        until_s = lines[end][0] if end < len(lines) else ended_s
        yield _step(heading.removeprefix(HEADING).strip(), result, until_s - at_s, output)


def _step(did: str, result: str, seconds: float, output: str) -> dict[str, Any]:
    output = output[:MAX_OUTPUT_CHARS]
    return {"did": did, "result": result, "seconds": round(seconds, 2), "output": output}


def _is_stale(path: Path, text: str) -> bool:
    return not path.exists() or path.read_text() != text


def _install(*command: object) -> None:
    sys.stderr.write(f"{' '.join(map(str, command))}\n")
    subprocess.run([*map(str, command)], check=True, timeout=INSTALL_DEADLINE_S)


if __name__ == "__main__":
    main()
