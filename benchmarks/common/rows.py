"""Files of JSON lines, one object a line, that are checked as they are read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TextIO, TypeVar

from pydantic import TypeAdapter, ValidationError

from plato.validation import first_problem

T = TypeVar("T")


class InputError(Exception):
    """Input of a benchmark is missing or invalid; the message says where and why."""


def read_text(path: Path) -> str:
    """A text file. Raises `InputError`."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error


def read_rows(path: Path, kind: type[T]) -> list[T]:
    """Every line as an object of a dataclass or model; other fields of it are ignored.

    Raises `InputError`.
    """
    adapter = TypeAdapter(kind)
    rows = []
    # Not `splitlines`: strings in JSON may contain what it also takes for the end of a line.
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            rows.append(adapter.validate_json(line))
        except ValidationError as error:
            raise InputError(f"{path}, line {number}: {first_problem(error)}") from error
    return rows


def write_row(file: TextIO, row: object) -> None:
    """Append a dataclass or model as one line, at once: what follows may take long or fail."""
    file.write(TypeAdapter(type(row)).dump_json(row).decode() + "\n")
    file.flush()


def write_rows(path: Path, rows: Iterable[object]) -> None:
    """Write a file of dataclasses or models."""
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            write_row(file, row)
