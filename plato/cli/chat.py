"""`plato chat`."""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from importlib import import_module
from typing import Any

from rich.console import Console

from plato.cli.asking import ask_and_show
from plato.cli.clients import open_client
from plato.cli.options import (
    AnswerMode,
    ApiKey,
    Fields,
    FoundUrl,
    Local,
    MaxTokens,
    Seed,
    System,
    request_fields,
)
from plato.client import Asker
from plato.display import brief
from plato.errors import PlatoError
from plato.runs import Mode

HELP = "/new begins anew, /mode NAME answers differently, /exit ends; Ctrl-C stops an answer"
PROMPT = "> "


def chat(
    mode: AnswerMode = Mode.AUTO,
    system: System = None,
    max_tokens: MaxTokens = None,
    option: Fields = None,
    seed: Seed = None,
    url: FoundUrl = None,
    api_key: ApiKey = None,
    local: Local = False,
) -> None:
    """Have a conversation; `/help` lists what can be said besides questions.

    Ctrl-C stops an answer, Ctrl-D ends the conversation.
    """
    options = request_fields(option or [], seed=seed, max_tokens=max_tokens)
    console = Console(stderr=True)
    with suppress(ImportError):
        # Line editing and history for `input`.
        import_module("readline")
    with asyncio.Runner() as runner:
        opened = open_client(url, api_key, local=local, console=console)
        client = runner.run(opened.__aenter__())
        try:
            console.print(HELP, style="dim", markup=False)
            talk = _Conversation(client, mode, system, options, console)
            while (line := _read_line()) is not None and line != "/exit":
                talk.say(line, runner)
        finally:
            runner.run(opened.__aexit__(None, None, None))


class _Conversation:
    """What was said so far, and how the next question is answered."""

    def __init__(
        self,
        client: Asker,
        mode: Mode,
        system: str | None,
        options: dict[str, Any],
        console: Console,
    ) -> None:
        self._client = client
        self._mode = mode
        self._first = [] if system is None else [{"role": "system", "content": system}]
        self._messages = list(self._first)
        self._options = options
        self._console = console

    def say(self, line: str, runner: asyncio.Runner) -> None:
        """Do what a line says: a command, or a question."""
        match line.split():
            case []:
                return
            case ["/new"]:
                self._messages = list(self._first)
                self._note("a new conversation")
            case ["/mode", name] if name in tuple(Mode):
                self._mode = Mode(name)
                self._note(f"the next answers are {name}")
            case [word, *_] if word.startswith("/"):
                self._note(f"{HELP}; modes: {', '.join(Mode)}")
            case _:
                self._ask(line, runner)

    def _ask(self, question: str, runner: asyncio.Runner) -> None:
        messages = [*self._messages, {"role": "user", "content": question}]
        options = {**self._options, "mode": self._mode.value}
        try:
            answered = runner.run(ask_and_show(self._client, messages, options))
        except KeyboardInterrupt:
            self._note("stopped; the question is forgotten")
            return
        except PlatoError as error:
            self._console.print(f"plato: {error.message}", style="red", markup=False)
            return
        self._messages = [*messages, {"role": "assistant", "content": answered.complete.text}]
        self._console.print(brief(answered.complete.info))

    def _note(self, text: str) -> None:
        self._console.print(text, style="dim", markup=False)


def _read_line() -> str | None:
    """The next line of the user; None at the end."""
    try:
        return input(PROMPT if sys.stdin.isatty() else "").strip()
    except EOFError:
        return None
