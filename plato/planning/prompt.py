"""The planner's prompts: what all tenants share, the question, and what is asked about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

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

    What is the same for all requests leads them and is public, so its KV is computed once per
    replica.
    """

    def __init__(
        self, asks: Wording, tokenizer: Tokenizer, template: ChatTemplate, fingerprint: str = ""
    ) -> None:
        """`fingerprint` is of the model whose tokenizer and template these are."""
        self._tokenizer = tokenizer
        self._fingerprint = fingerprint

        def turn(role: str, text: str) -> Turn:
            return Turn(role, (Segment(tokenizer.text(text), public=True),))

        turns = [turn("system", asks.instruction)] if asks.instruction else []
        for question, answer in asks.examples:
            turns += (turn("user", question), turn("assistant", answer))
        asked = Segment(tokenizer.text("?"), role="user")
        segments = template.open([*turns, Turn("user", (asked,))])
        # The markup around the question does not depend on it, so it is rendered once.
        place = segments.index(asked)
        self.public = Prompt(segments[:place], fingerprint=fingerprint)
        """The common prefix of all prompts."""
        self._after = segments[place + 1 :]

    def build(
        self, question: Segment, tenant: str, *, ask: str = "", lines: Sequence[str] = ()
    ) -> Prompt:
        """The prompt for a question (`shown_question`): `ask` follows it, `lines` open the answer.

        Each line is tokenised on its own, so prompts with more lines continue those with fewer.
        """
        asked = (Segment(self._tokenizer.text(ask), role="user"),) if ask else ()
        begun = (Segment(self._tokenizer.text(line), role="assistant") for line in lines)
        segments = (*self.public.segments, question, *asked, *self._after, *begun)
        return Prompt(segments, tenant, self._fingerprint)


@dataclass(frozen=True, slots=True)
class PlanningPrompts:
    """The prompts of a planner."""

    outline: PlanningPrompt
    split: PlanningPrompt
    dependencies: PlanningPrompt

    @classmethod
    def of(
        cls,
        tokenizer: Tokenizer,
        template: ChatTemplate,
        fingerprint: str = "",
        *,
        examples: bool = True,
    ) -> PlanningPrompts:
        """Those for the model whose tokenizer, template and fingerprint these are.

        `examples`: see `Calibration`.
        """

        def prompt(asks: Wording) -> PlanningPrompt:
            asks = asks if examples else replace(asks, examples=())
            return PlanningPrompt(asks, tokenizer, template, fingerprint)

        return cls(*map(prompt, (wording.OUTLINE, wording.SPLIT, wording.DEPENDENCIES)))

    @property
    def public(self) -> tuple[Prompt, ...]:
        """Prefixes that all tenants share."""
        return self.outline.public, self.split.public, self.dependencies.public


def shown_question(tokenizer: Tokenizer, messages: Sequence[Message]) -> Segment:
    """The last of `messages`, behind the end of the conversation before it; of bounded length.

    The caller's system message is left out: it describes the style of all answers and would shift
    the split decision.
    """
    *earlier, question = messages
    shown = (*_conversation(tokenizer, earlier), *_question(tokenizer, question.content))
    return Segment(shown, role="user")


def _question(tokenizer: Tokenizer, text: str) -> tuple[int, ...]:
    tokens, cut = tokenizer.text(text.strip()), tokenizer.text(wording.CUT)
    if len(tokens) <= QUESTION_HEAD_TOKENS + len(cut) + QUESTION_TAIL_TOKENS:
        return tokens
    return (*tokens[:QUESTION_HEAD_TOKENS], *cut, *tokens[-QUESTION_TAIL_TOKENS:])


def _conversation(tokenizer: Tokenizer, messages: Sequence[Message]) -> tuple[int, ...]:
    """The end of the conversation before the question, as text before it."""
    tokens: tuple[int, ...] = ()
    for message in reversed(messages):
        if message.role == "system":
            continue
        line = wording.message(message.role, message.content.strip())
        tokens = (*tokenizer.text(line), *tokens)
        if len(tokens) >= HISTORY_TOKENS:
            tokens = (*tokenizer.text(wording.CUT), *tokens[-HISTORY_TOKENS:])
            break
    if not tokens:
        return ()
    return (*tokenizer.text(wording.HISTORY), *tokens, *tokenizer.text(wording.QUESTION))
