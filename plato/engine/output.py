"""The output of one sequence: its tokens, their text, and where it ends."""

from __future__ import annotations

from collections.abc import Iterable, Set

from tokenizers import Tokenizer

from plato.engine.protocol import Chunk, FinishReason, GenerateRequest, Load
from plato.engine.text import TextStream


class Output:
    """What one sequence has decoded so far.

    Engines differ in where tokens come from; what ends a sequence (end tokens, budget, stop
    strings, sentences), which text is released when, and what a chunk reports is the same for all.
    """

    def __init__(
        self, request: GenerateRequest, tokenizer: Tokenizer, end_tokens: Set[int]
    ) -> None:
        """`end_tokens` are those that end the model's turn."""
        self.request = request
        self.tokens: list[int] = list(request.emitted)
        """Including those of earlier attempts."""
        self.finish: FinishReason | None = None
        self.ended_turn = False
        """Whether the last token is one that ends the model's turn."""
        self.scores: tuple[float, ...] = ()
        """See `Chunk.scores`."""
        self.steps = 0
        """See `Chunk.steps`."""
        self._end_tokens = end_tokens if request.stop.end_tokens else frozenset()
        self._text = TextStream(tokenizer, request.stop.strings)
        self._text.push(request.emitted)  # Its text was released by the earlier attempt.
        self._released = self._reported = len(self.tokens)
        """Tokens whose text was released, and tokens that chunks have reported."""

    def __len__(self) -> int:
        return len(self.tokens)

    def append(self, tokens: Iterable[int]) -> int:
        """Append tokens up to the budget or an end token; returns how many it took.

        An end token sets the finish reason; all other ends are found by `release`.
        """
        before = len(self.tokens)
        for token in tokens:
            if len(self.tokens) == self.request.max_tokens or self.finish is not None:
                break
            self.tokens.append(token)
            if token in self._end_tokens:
                self.finish, self.ended_turn = FinishReason.STOP, True
        return len(self.tokens) - before

    def release(self) -> str:
        """Text completed by the tokens since the last call; sets the finish reason if it ends here.

        Once there is a finish reason, the text that was held back comes, too.
        """
        text = self._text.push(self.tokens[self._released :])
        self._released = len(self.tokens)
        if self._text.stopped:
            self.finish = FinishReason.STOP
        elif self.finish is None and self._is_long_enough(text):
            self.finish = FinishReason.LENGTH
        if self.finish is not None:
            text += self._text.flush()
        return text

    def chunk(
        self, text: str, *, cached_tokens: int, replica: str, epoch: str, load: Load
    ) -> Chunk:
        """The chunk with `text` and every token not reported yet; marks them as reported."""
        start, self._reported = self._reported, len(self.tokens)
        return Chunk(
            run_id=self.request.run_id,
            node=self.request.node,
            attempt=self.request.attempt,
            offset=start,
            tokens=tuple(self.tokens[start:]),
            text=text,
            finish=self.finish,
            prompt_tokens=len(self.request.prompt),
            cached_tokens=cached_tokens,
            replica=replica,
            epoch=epoch,
            load=load,
            scores=self.scores if start == 0 else (),
            steps=self.steps,
        )

    def _is_long_enough(self, text: str) -> bool:
        """Whether the budget is used up, or almost, and new `text` ends a sentence."""
        length, start = len(self.tokens), self.request.stop.sentence_from
        if length >= self.request.max_tokens:
            return True
        return start is not None and length >= start and bool(text) and self._text.ends_sentence
