"""Between the token ids of requests and servers that exchange text."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Tokenizer

from plato.engine.openai.dialects import ChatMessage
from plato.engine.plain_text import edgeless, text_encoder
from plato.engine.protocol import GenerateRequest


class TextCodec:
    """Reads prompts as chat messages, and answers as tokens."""

    def __init__(self, backend: Tokenizer) -> None:
        """`backend` is the tokenizer of the prompts; the server may have another."""
        self._backend = backend
        self._encoder = text_encoder(edgeless(backend))

    def messages(self, request: GenerateRequest) -> tuple[ChatMessage, ...]:
        """The messages of a prompt; what was emitted is the beginning of the answer."""
        found = [
            {"role": role, "content": self.text(tokens)} for role, tokens in request.prompt.messages
        ]
        if request.emitted:
            if found[-1]["role"] != "assistant":
                found.append({"role": "assistant", "content": ""})
            found[-1]["content"] += self.text(request.emitted)
        return tuple(found)

    def text(self, tokens: Iterable[int]) -> str:
        """The text of tokens; of an answer without the token that ends its turn."""
        return str(self._backend.decode(list(tokens), skip_special_tokens=True))

    def tokens(self, text: str) -> tuple[int, ...]:
        """Tokens whose text this is."""
        return tuple(self._encoder.encode(text, add_special_tokens=False).ids)
