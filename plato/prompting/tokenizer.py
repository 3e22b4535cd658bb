"""Text to token ids and back, with user text separate from template markup."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any

import tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from plato.errors import ModelError
from plato.prompting.rendering import Renderer, RenderError


class Tokenizer:
    """Wraps a transformers fast tokenizer.

    Pieces of a prompt are tokenised separately, so nothing is added at their edges: no automatic
    special tokens, no leading space. Thread-safe: the two encoders are private copies that are
    never reconfigured.
    """

    def __init__(self, hf: PreTrainedTokenizerBase) -> None:
        """Raises `ModelError`: `hf` is not a fast tokenizer, or its chat template is ambiguous."""
        if not hf.is_fast:
            raise ModelError(
                "this model has no fast tokenizer; add tokenizer.json to its folder "
                "(transformers converts most slow tokenizers)"
            )
        self.hf = hf
        self._markup = _edgeless(hf)
        self._text = _edgeless(hf)
        self._text.encode_special_tokens = True
        renderer = Renderer(hf, datetime.now())
        # Tokens like Qwen's `<think>` are special to the template, but not to the tokenizer.
        self._control = frozenset(
            number
            for number, added in hf.added_tokens_decoder.items()
            # The unknown token is not markup.
            if (added.special and number not in {hf.unk_token_id} - {hf.eos_token_id})
            or added.content in renderer.template
        )
        ends = {hf.eos_token_id, self._end_of_turn(renderer)}
        self.end_tokens = frozenset(token for token in ends if token is not None)
        """Ids that end the assistant's turn: end of sequence, and the template's closing token."""

    @classmethod
    def load(cls, folder: str) -> Tokenizer:
        """Load the tokenizer of the model in `folder`.

        Raises `ModelError` if it is missing or broken.
        """
        try:
            hf = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        except Exception as error:  # tokenizers raises bare `Exception` for a broken file
            raise ModelError(
                f"the tokenizer in {folder} cannot be loaded ({error}); "
                "check that tokenizer.json and tokenizer_config.json exist and are complete"
            ) from error
        return cls(hf)

    def text(self, text: str) -> tuple[int, ...]:
        """Tokenise text of a user or a model: `<|im_end|>` in it stays text."""
        tokens: list[int] = []
        rest = [text]
        while rest:
            piece = rest.pop()
            encoding = self._text.encode(piece, add_special_tokens=False)
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
        return str(
            self.hf.decode(
                list(tokens), skip_special_tokens=not special, clean_up_tokenization_spaces=False
            )
        )

    def _end_of_turn(self, renderer: Renderer) -> int | None:
        """The token directly after an assistant's content, if it is a control token."""
        try:
            pieces = renderer.pieces(("user", "assistant", "user"))
        except RenderError:
            return None
        tokens = self.markup(pieces[2].lstrip())
        return tokens[0] if tokens and tokens[0] in self._control else None


def _edgeless(hf: PreTrainedTokenizerBase) -> tokenizers.Tokenizer:
    """A copy of the tokenizer that adds no leading space and does not truncate."""
    spec = json.loads(hf.backend_tokenizer.to_str())
    spec["truncation"] = spec["padding"] = None
    _without_leading_space(spec, "pre_tokenizer", "pretokenizers")
    _without_leading_space(spec, "normalizer", "normalizers")
    return tokenizers.Tokenizer.from_str(json.dumps(spec))


def _without_leading_space(spec: dict[str, Any], name: str, members: str) -> None:
    """Change `spec[name]`, a step or a sequence of steps, in place."""
    step = spec[name]
    if step is None:
        return
    for part in step[members] if step["type"] == "Sequence" else [step]:
        if part["type"] == "Metaspace":
            part["prepend_scheme"] = "never"
        elif part["type"] == "ByteLevel":
            part["add_prefix_space"] = False
        elif part["type"] == "Prepend":
            part["prepend"] = ""
