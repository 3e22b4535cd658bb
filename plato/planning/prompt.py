"""The planner's prompts: an instruction and examples shared by all tenants, then the question."""

from __future__ import annotations

from collections.abc import Sequence

from plato.engine import Prompt, Segment
from plato.planning import wording
from plato.planning.wording import Wording
from plato.prompting import ChatTemplate, Tokenizer, Turn
from plato.runs import Message

QUESTION_HEAD_TOKENS = 192
QUESTION_TAIL_TOKENS = 96
"""A longer question is cut to this many tokens at its start and end, one of which usually has the
actual request."""
HISTORY_TOKENS = 128
"""The conversation before the question is cut to this many tokens at its end."""


class PlanningPrompt:
    """Builds the prompts of one wording.

    Everything that is the same for all requests is one public segment, so its KV is computed once
    per replica. The caller's system message is left out: it describes the style of all answers and
    would shift the split decision.
    """

    def __init__(
        self, asks: Wording, tokenizer: Tokenizer, template: ChatTemplate, fingerprint: str = ""
    ) -> None:
        """`fingerprint` is of the model whose tokenizer and template these are."""
        self._tokenizer = tokenizer
        self._fingerprint = fingerprint

        def turn(role: str, text: str) -> Turn:
            return Turn(role, (Segment(tokenizer.text(text), public=True),))

        turns = [turn("system", asks.instruction)]
        for question, plan in asks.examples:
            turns += (turn("user", question), turn("assistant", plan))
        asked = Segment(tokenizer.text("?"))
        segments = template.open([*turns, Turn("user", (asked,))])
        # The markup around the question does not depend on it, so it is rendered once.
        place = segments.index(asked)
        self._before = Segment(_joined(segments[:place]), public=True)
        self._after = Segment(_joined(segments[place + 1 :]))
        self._cut = tokenizer.text(wording.CUT)
        self._history = tokenizer.text(wording.HISTORY)
        self._question_head = tokenizer.text(wording.QUESTION)

    @property
    def public(self) -> Prompt:
        """The common prefix of all planning prompts."""
        return Prompt((self._before,), fingerprint=self._fingerprint)

    def build(self, messages: Sequence[Message], tenant: str, lines: Sequence[str] = ()) -> Prompt:
        """The prompt for the last of `messages`, of bounded length; `lines` open the answer.

        Each line is tokenised on its own, so prompts with more lines continue those with fewer.
        """
        *earlier, question = messages
        shown = (*self._conversation(earlier), *self._question(question.content))
        begun = (Segment(self._tokenizer.text(line)) for line in lines)
        segments = (self._before, Segment(shown), self._after, *begun)
        return Prompt(segments, tenant, self._fingerprint)

    def _question(self, text: str) -> tuple[int, ...]:
        tokens = self._tokenizer.text(text.strip())
        if len(tokens) <= QUESTION_HEAD_TOKENS + len(self._cut) + QUESTION_TAIL_TOKENS:
            return tokens
        return (*tokens[:QUESTION_HEAD_TOKENS], *self._cut, *tokens[-QUESTION_TAIL_TOKENS:])

    def _conversation(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """The end of the conversation before the question, as text before it."""
        tokens: tuple[int, ...] = ()
        for message in reversed(messages):
            if message.role == "system":
                continue
            line = wording.message(message.role, message.content.strip())
            tokens = (*self._tokenizer.text(line), *tokens)
            if len(tokens) >= HISTORY_TOKENS:
                tokens = (*self._cut, *tokens[-HISTORY_TOKENS:])
                break
        return (*self._history, *tokens, *self._question_head) if tokens else ()


def _joined(segments: Sequence[Segment]) -> tuple[int, ...]:
    return tuple(token for segment in segments for token in segment.tokens)
