"""Plans in files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from plato.cli.errors import UsageError
from plato.errors import InvalidPlanError, file_problem
from plato.runs import Node
from plato.settings import MAX_NODES


def read_plan(path: Path) -> list[dict[str, Any]]:
    """Read a plan from a file: plan lines (`1 | Title | -`), or JSON.

    JSON is a list of parts, or what `plato plan --json` prints. Raises `UsageError`.
    """
    from plato.planning.given import read_plan as read_lines

    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the plan in {path} cannot be read ({file_problem(error)})") from error
    if text.lstrip().startswith(("{", "[{", "[\n", "[ ")) or path.suffix == ".json":
        try:
            parts = json.loads(text)
        except ValueError as error:
            raise UsageError(f"the plan in {path} is not valid JSON: {error}") from error
        if isinstance(parts, dict):
            parts = parts.get("plan")
        if not isinstance(parts, list):
            raise UsageError(f"the plan in {path} is not a JSON list of parts")
        return parts
    try:
        return [part_of(node) for node in read_lines(text, MAX_NODES)]
    except InvalidPlanError as error:
        raise UsageError(error.message) from error


def part_of(node: Node) -> dict[str, Any]:
    """A node as a part of `plato.plan` in a request."""
    part = {"number": node.number, "title": node.title, "dependencies": list(node.dependencies)}
    return part if node.length is None else {**part, "length": node.length}
