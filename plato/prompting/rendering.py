"""Chat templates as markup with holes: the text that a template writes around message contents."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

from jinja2 import TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from plato.engine.thinking import BEGIN_THINKING, END_THINKING, NO_THINKING
from plato.engine.tokenizer_config import TokenizerConfig
from plato.errors import ModelError

BUILT_IN = """\
{{- bos_token -}}
{%- for message in messages -%}
{%- if message['role'] == 'system' -%}
{{- message['content'] + '\\n\\n' -}}
{%- elif message['role'] == 'user' -%}
{{- '### User:\\n' + message['content'] + '\\n\\n' -}}
{%- else -%}
{{- '### Assistant:\\n' + message['content'] + eos_token + '\\n\\n' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '### Assistant:\\n' -}}
{%- endif -%}
"""
"""For models without a chat template (mostly base models)."""

_STRUCTURES = 256
"""Cache size: role structures."""
_LONG_STRUCTURES = 8
_SHORT = 32
"""Turns of the longest structure of which many are cached."""


class RenderError(Exception):
    """The template rejects this order of roles, or changes the contents."""


class Renderer:
    """Renders a model's chat template as text.

    Thinking is disabled, because it is not separated from the answer: by the template, or by ending
    at once what the template begins. Templates that state a date
    get `today` for the lifetime of this object: the prefix of prompts must not change at midnight.
    """

    def __init__(self, config: TokenizerConfig, today: datetime) -> None:
        """Raises `ModelError` if the template is not valid."""
        self.template = BUILT_IN if config.chat_template is None else config.chat_template
        self._variables: dict[str, Any] = {**config.names}
        if config.chat_template is None:
            # Only the tokenizers of models trained with a BOS token add one.
            self._variables["bos_token"] = config.names["bos_token"] if adds_bos(config) else ""
            self._variables["eos_token"] = config.names.get("eos_token", "")
        try:
            self._compiled = _environment(today).from_string(self.template)
        except TemplateError as error:
            raise ModelError(f"the chat template of this model is not valid: {error}") from error
        self._known_pieces = lru_cache(maxsize=_STRUCTURES)(self._pieces)
        # Long structures rarely occur twice, except for the nodes of one run.
        self._recent_pieces = lru_cache(maxsize=_LONG_STRUCTURES)(self._pieces)

    def render(self, messages: Sequence[tuple[str, str]], *, opened: bool) -> str:
        """The text of a conversation of (role, content), with an assistant turn `opened` after it.

        Raises `RenderError` if the template rejects it.
        """
        text = self._render(messages, opened, NO_THINKING)
        if opened and text.rstrip().endswith(BEGIN_THINKING):
            return f"{text.rstrip()}\n\n{END_THINKING}\n\n"
        return text

    @property
    def thinks(self) -> bool:
        """Whether the model thinks before it answers, unless it is kept from it."""
        asked = [("user", hole(0))]
        try:
            return self._render(asked, True, {}) != self.render(asked, opened=True)
        except RenderError:
            return False

    def _render(
        self, messages: Sequence[tuple[str, str]], opened: bool, thinking: Mapping[str, bool]
    ) -> str:
        try:
            return self._compiled.render(
                messages=[{"role": role, "content": content} for role, content in messages],
                add_generation_prompt=opened,
                tools=None,
                documents=None,
                **self._variables,
                **thinking,
            )
        except (TemplateError, TypeError, ValueError, KeyError) as error:
            raise RenderError(str(error)) from error

    def pieces(self, roles: tuple[str, ...]) -> tuple[str, ...]:
        """The markup before, between and after the contents of turns with these roles.

        An assistant turn is opened at the end, so there is one more piece than roles. Raises
        `RenderError` unless every content appears exactly once, in order.
        """
        short = len(roles) <= _SHORT
        return (self._known_pieces if short else self._recent_pieces)(roles)

    def _pieces(self, roles: tuple[str, ...]) -> tuple[str, ...]:
        text = self.render([(role, hole(i)) for i, role in enumerate(roles)], opened=True)
        *pieces, last = _HOLE.split(text)
        if pieces[1::2] != [str(i) for i in range(len(roles))]:
            shown = ", ".join(roles[:_SHORT])
            raise RenderError(f"not every content of {shown} appears exactly once and in order")
        return (*pieces[::2], last)


def hole(index: int) -> str:
    """Placeholder for the content of message `index`: private-use characters, never trimmed."""
    return f"\ue000{index}\ue001"


_HOLE = re.compile("\ue000([0-9]+)\ue001")


class _Generation(Extension):
    """Ignores `{% generation %}`, which marks the assistant's text for training."""

    tags = {"generation"}  # noqa: RUF012 - declared by jinja

    def parse(self, parser: Parser) -> list[Node]:
        """The marked statements, unchanged."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _environment(today: datetime) -> ImmutableSandboxedEnvironment:
    """What chat templates may use, by the conventions of transformers; they are untrusted code."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals |= {"raise_exception": _refuse, "strftime_now": today.strftime}
    return environment


def _to_json(value: object, **options: Any) -> str:
    """Without the escapes for HTML of jinja's own."""
    return json.dumps(value, **{"ensure_ascii": False, **options})


def _refuse(message: str) -> None:
    raise TemplateError(message)


def adds_bos(config: TokenizerConfig) -> bool:
    """Whether texts of this model begin with its BOS token."""
    begin = config.token_id("bos_token")
    if begin is None:
        return False
    if config.adds_bos is not None:
        return config.adds_bos
    return begin in config.backend.encode("").ids
