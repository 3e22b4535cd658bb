"""`plato batch`."""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from plato.cli.clients import open_client
from plato.cli.errors import ExitCode, UsageError
from plato.cli.options import (
    AnswerMode,
    ApiKey,
    FoundUrl,
    Local,
    MaxTokens,
    Seed,
    System,
    messages_of,
    request_fields,
)
from plato.client import Answer, Asker, UnreachableError
from plato.errors import OverloadedError, PlatoError, UnavailableError, file_problem
from plato.runs import Mode

ATTEMPTS = 6
"""For a question that the server is too busy for."""
FIRST_WAIT_S = 1.0


@dataclass(frozen=True, slots=True)
class Item:
    """A line of the input."""

    id: str
    messages: list[dict[str, Any]]
    fields: dict[str, Any]
    """Further fields of the request."""


def batch(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE.jsonl",
            help='A question a line: {"question": "..."} or {"messages": [...]}, with further '
            "fields of a request, and an id; or lines of OpenAI's batch API.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="The answers; default: FILE.answers.jsonl."),
    ] = None,
    concurrency: Annotated[
        int, typer.Option("--concurrency", "-c", min=1, max=256, help="Questions at a time.")
    ] = 4,
    mode: AnswerMode = Mode.AUTO,
    system: System = None,
    max_tokens: MaxTokens = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", metavar="KEY=VALUE", help="A field of every request."),
    ] = None,
    seed: Seed = None,
    url: FoundUrl = None,
    api_key: ApiKey = None,
    local: Local = False,
) -> None:
    """Answer the questions of a file; what is already in the output is not asked again.

    Each line of the output has the `id` of its question (its line number, unless it has one), and
    `answer`, `finish_reason`, `usage` and `plato`, or `error`. Failed questions are asked again
    when the command is repeated. Exit status: 1 if one failed.
    """
    target = out or file.with_suffix(".answers.jsonl")
    defaults = request_fields(option or [], seed=seed, max_tokens=max_tokens)
    defaults = {"mode": mode.value, **defaults}
    items = list(_read(file, system))
    done = _answered(target)
    waiting = [item for item in items if item.id not in done]
    failed = asyncio.run(
        _answer_all(waiting, defaults, target, concurrency, (url, api_key), local=local)
    )
    console = Console(stderr=True)
    console.print(
        f"{len(items)} questions: {len(waiting) - failed} answered, "
        f"{len(items) - len(waiting)} before, {failed} failed; see {target}",
        style="dim",
        markup=False,
    )
    if failed:
        raise typer.Exit(ExitCode.FAILED)


def _read(file: Path, system: str | None) -> Iterator[Item]:
    """The questions of a file. Raises `UsageError` that names the line."""
    try:
        lines = file.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} cannot be read ({file_problem(error)})") from error
    ids: Counter[str] = Counter()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            item = _item(json.loads(line), number, system)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise UsageError(
                f"line {number} of {file} is no question; write an object such as "
                '{"question": "Why is the sea salty?"}'
            ) from error
        ids[item.id] += 1
        if ids[item.id] > 1:
            raise UsageError(f"line {number} of {file} has the id {item.id} of an earlier one")
        yield item


def _item(content: dict[str, Any], number: int, system: str | None) -> Item:
    name = content.pop("custom_id", None) or content.pop("id", None) or number
    fields = dict(content.get("body", content))
    question = fields.pop("question", None)
    messages = fields.pop("messages", None)
    if not messages:
        if not question.strip():
            raise ValueError("it has no question")
        messages = messages_of(question, system)
    # The answer is read as a stream of events.
    fields.pop("stream", None)
    fields.pop("stream_options", None)
    return Item(str(name), list(messages), fields)


def _answered(target: Path) -> set[str]:
    """The ids that `target` has answers for; what else is in it, as after a crash, is removed."""
    if not target.exists():
        return set()
    kept = {}
    for line in target.read_text("utf-8").splitlines():
        try:
            content = json.loads(line)
            if "answer" in content:
                kept[str(content["id"])] = line
        except (ValueError, LookupError, TypeError):
            continue
    scratch = target.with_name(f".{target.name}.partial")
    scratch.write_text("".join(f"{line}\n" for line in kept.values()), "utf-8")
    os.replace(scratch, target)
    return set(kept)


async def _answer_all(
    items: list[Item],
    defaults: dict[str, Any],
    target: Path,
    concurrency: int,
    server: tuple[str | None, str | None],
    *,
    local: bool,
) -> int:
    """Append the answers to `target` as they come; returns how many questions failed.

    Raises `UnreachableError` as soon as there is no server.
    """
    console = Console(stderr=True)
    columns = (TextColumn("answered"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    waiting, failed = iter(items), 0
    async with open_client(*server, local=local, console=console) as client:
        with (
            target.open("a", encoding="utf-8") as file,
            Progress(*columns, console=console, transient=True) as bar,
        ):
            task = bar.add_task("", total=len(items))

            async def work() -> None:
                nonlocal failed
                for item in waiting:
                    answered = await _answer(client, item, defaults, file)
                    failed += not answered
                    bar.advance(task)

            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(min(concurrency, len(items))):
                        group.create_task(work())
            except* UnreachableError as errors:
                raise errors.exceptions[0] from None
    return failed


async def _answer(client: Asker, item: Item, defaults: dict[str, Any], file: TextIO) -> bool:
    """Ask one question, and write its line; whether it was answered."""
    content: dict[str, Any]
    try:
        answer = await _patiently(client, item, defaults)
        content = {
            "answer": answer.text,
            "finish_reason": answer.finish_reason,
            "usage": answer.usage.model_dump(mode="json"),
            "plato": answer.info.model_dump(mode="json"),
        }
    except UnreachableError:
        raise
    except PlatoError as error:
        content = {"error": {"message": error.message, "code": error.code, "param": error.param}}
    file.write(json.dumps({"id": item.id, **content}) + "\n")
    file.flush()
    return "answer" in content


async def _patiently(client: Asker, item: Item, defaults: dict[str, Any]) -> Answer:
    """Ask again as long as the server is too busy, up to `ATTEMPTS` times."""
    wait_s = FIRST_WAIT_S
    for _ in range(ATTEMPTS - 1):
        try:
            return await client.ask(item.messages, **{**defaults, **item.fields})
        except UnreachableError:
            raise
        except (OverloadedError, UnavailableError) as error:
            await asyncio.sleep(max(wait_s, error.retry_after_s or 0))
            wait_s *= 2
    return await client.ask(item.messages, **{**defaults, **item.fields})
