"""Chat templates as markup with holes: the text that a template writes around message contents."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

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


class RenderError(Exception):
    """The template rejects this order of roles, or changes the contents."""


class Renderer:
    """Renders a tokenizer's chat template as text.

    Thinking is disabled, because it is not separated from the answer. Templates that state a date
    get `today` for the lifetime of this object: the prefix of prompts must not change at midnight.
    """

    def __init__(self, hf: PreTrainedTokenizerBase, today: datetime) -> None:
        """Raises `ModelError` if the tokenizer has several templates and none is the default."""
        self._hf = hf
        self._variables: dict[str, Any] = {"enable_thinking": False}
        if hf.chat_template:
            try:
                self.template = str(hf.get_chat_template())
            except ValueError as error:
                raise ModelError(
                    f"the chat template of this model cannot be used: {error}"
                ) from error
            if "strftime_now" in self.template:
                self.template = _frozen_clock(today) + self.template
        else:
            # Only the tokenizers of models trained with a BOS token add one.
            begins = hf.bos_token_id is not None and hf.bos_token_id in hf("")["input_ids"]
            self.template = BUILT_IN
            self._variables["bos_token"] = hf.bos_token if begins else ""
            self._variables["eos_token"] = hf.eos_token or ""
        self.pieces = lru_cache(maxsize=_STRUCTURES)(self._pieces)

    def render(self, messages: Sequence[tuple[str, str]], *, opened: bool) -> str:
        """The text of a conversation of (role, content), with an assistant turn `opened` after it.

        Raises `RenderError` if the template rejects it.
        """
        try:
            text = self._hf.apply_chat_template(
                [{"role": role, "content": content} for role, content in messages],
                chat_template=self.template,
                add_generation_prompt=opened,
                tokenize=False,
                **self._variables,
            )
        except (TemplateError, TypeError, ValueError, KeyError) as error:
            raise RenderError(str(error)) from error
        return str(text)

    def _pieces(self, roles: tuple[str, ...]) -> tuple[str, ...]:
        """The markup before, between and after the contents of turns with these roles.

        An assistant turn is opened at the end, so there is one more piece than roles. Raises
        `RenderError` unless every content appears exactly once, in order.
        """
        text = self.render([(role, hole(i)) for i, role in enumerate(roles)], opened=True)
        pieces = []
        for i in range(len(roles)):
            piece, found, text = text.partition(hole(i))
            if not found or hole(i) in text:
                raise RenderError(
                    f"content {i + 1} of {', '.join(roles)} does not appear exactly once"
                )
            pieces.append(piece)
        return (*pieces, text)


def hole(index: int) -> str:
    """Placeholder for the content of message `index`: private-use characters, never trimmed."""
    return f"\ue000{index}\ue001"


def _frozen_clock(now: datetime) -> str:
    """A macro that shadows `strftime_now` of transformers and always formats `now`."""
    known = {f"%{letter}": now.strftime(f"%{letter}") for letter in "aAwdbBmyYHIpMSjUWcxX"}
    known |= {"%-d": str(now.day), "%-m": str(now.month)}
    replaced = "".join(f" | replace({key!r}, {value!r})" for key, value in known.items())
    # The empty expression protects the first character of the template from trim_blocks.
    return (
        f"{{% macro strftime_now(format) %}}{{{{ format{replaced} }}}}{{% endmacro %}}{{{{ '' }}}}"
    )
