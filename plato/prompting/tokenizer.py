"""Text to token ids and back, with user text separate from template markup."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise

from plato.engine.plain_text import edgeless, text_encoder
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
        self._markup = edgeless(config.backend)
        self._text = text_encoder(self._markup)
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
