"""Runs the command in this process."""

from __future__ import annotations

import json
from typing import Any

from click.testing import Result
from typer.testing import CliRunner

from plato.cli import app


def plato(*arguments: str, stdin: str | None = None) -> Result:
    """Run the command; only `SystemExit` may leave it."""
    result = CliRunner().invoke(app, arguments, input=stdin)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert "Traceback" not in result.stderr
    return result


def refused(*arguments: str, code: int = 2, stdin: str | None = None) -> str:
    """Run the command, which fails with this exit status; the one line that says why."""
    result = plato(*arguments, stdin=stdin)
    assert (result.exit_code, result.stdout) == (code, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("plato: ")
    assert "pydantic" not in line
    return line.removeprefix("plato: ")


def printed(*arguments: str, stdin: str | None = None) -> Any:
    """Run the command with `--json`; the object that it prints."""
    result = plato(*arguments, "--json", stdin=stdin)
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)
