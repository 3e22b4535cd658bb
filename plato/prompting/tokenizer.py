"""Text to token ids and back, with user text separate from template markup."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any

import tokenizers

from plato.engine.tokenizer_config import TokenizerConfig
from plato.prompting.rendering import Renderer, RenderError, adds_bos


class Tokenizer:
    """Wraps a fast tokenizer.

    Pieces of a prompt are tokenised separately, so nothing is added at their edges: no automatic
    special tokens, no leading space. Thread-safe: the encoders are never reconfigured.
    """

    def __init__(self, config: TokenizerConfig) -> None:
        """Raises `ModelError` if the chat template is ambiguous."""
        self.config = config
        self._markup = _edgeless(config.backend)
        self._text = copy.deepcopy(self._markup)
        self._text.encode_special_tokens = True
        self.size = config.backend.get_vocab_size()
        """Number of tokens, added ones included."""
        added = config.backend.get_added_tokens_decoder()
        self.special = frozenset(number for number, token in added.items() if token.special)
        """Ids of the special tokens."""
        renderer = Renderer(config, datetime.now())
        end = config.token_id("eos_token")
        # The unknown token is not markup. Tokens like Qwen's `<think>` are special to the template,
        # but not to the tokenizer.
        self._control = self.special - ({config.token_id("unk_token")} - {end})
        self._control |= {n for n, token in added.items() if token.content in renderer.template}
        ends = {end, self._end_of_turn(renderer)}
        self.end_tokens = frozenset(token for token in ends if token is not None)
        """Ids that end the assistant's turn: end of sequence, and the template's closing token."""

        begin = config.token_id("bos_token")
        self.beginning = (begin,) if begin is not None and adds_bos(config) else ()
        """Tokens before a text that no template begins."""

    @classmethod
    def load(cls, folder: str) -> Tokenizer:
        """Load the tokenizer of the model in `folder`.

        Raises `ModelError` if it is missing or broken.
        """
        return cls(TokenizerConfig.load(folder))

    def text(self, text: str) -> tuple[int, ...]:
        """Tokenise text of a user or a model: `<|im_end|>` in it stays text."""
        tokens: list[int] = []
        rest = [text]
        while rest:
            piece = rest.pop()
            # A batch of one: only batches let other threads run meanwhile.
            (encoding,) = self._text.encode_batch([piece], add_special_tokens=False)
            cuts = [
                start + 1
                for token, (start, _) in zip(encoding.ids, encoding.offsets, strict=True)
                if token in self._control
            ]
            if not cuts:
                tokens += encoding.ids
            elif len(piece) > 1:
                # Split control tokens after their first character, so that none is matched.
                edges = [0, *cuts, len(piece)]
                parts = [piece[a:b] for a, b in pairwise(edges) if a < b]
                rest += reversed(parts)
        return tuple(tokens)

    def markup(self, text: str) -> tuple[int, ...]:
        """Tokenise template markup: special tokens are parsed, nothing is added."""
        return tuple(self._markup.encode(text, add_special_tokens=False).ids)

    def decode(self, tokens: Sequence[int], *, special: bool = False) -> str:
        """Text of `tokens`, without special tokens unless `special`."""
        return str(self._markup.decode(list(tokens), skip_special_tokens=not special))

    def tokens_of(self, characters: frozenset[str]) -> frozenset[int]:
        """Ordinary tokens that consist of `characters`; takes tenths of a second."""
        return frozenset(
            token
            for token in range(self.size)
            if token not in self.special
            and (text := self.decode((token,), special=True))
            and characters.issuperset(text)
        )

    def _end_of_turn(self, renderer: Renderer) -> int | None:
        """The token directly after an assistant's content, if it is a control token."""
        try:
            pieces = renderer.pieces(("user", "assistant", "user"))
        except RenderError:
            return None
        tokens = self.markup(pieces[2].lstrip())
        return tokens[0] if tokens and tokens[0] in self._control else None


def _edgeless(backend: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """A tokenizer that adds no leading space and does not truncate; `backend` if it is one."""
    steps = {name: _state(getattr(backend, name)) for name in ("normalizer", "pre_tokenizer")}
    changed = [_remove_leading_space(step) for step in steps.values()]
    if not any(changed) and backend.truncation is None and backend.padding is None:
        return backend
    spec = json.loads(backend.to_str()) | steps | {"truncation": None, "padding": None}
    return tokenizers.Tokenizer.from_str(json.dumps(spec))


def _state(step: Any) -> dict[str, Any] | None:
    """The specification of a step or a sequence of steps; the whole tokenizer's takes 20 MB."""
    state: dict[str, Any] | None = None if step is None else json.loads(step.__getstate__())
    return state


def _remove_leading_space(step: dict[str, Any] | None) -> bool:
    """Change a step in place; returns whether that was necessary."""
    if step is None:
        return False
    changed = False
    for part in step.get("pretokenizers") or step.get("normalizers") or [step]:
        for kind, name, value in (
            ("Metaspace", "prepend_scheme", "never"),
            ("ByteLevel", "add_prefix_space", False),
            ("Prepend", "prepend", ""),
        ):
            if part["type"] == kind and part[name] != value:
                part[name] = value
                changed = True
    return changed
