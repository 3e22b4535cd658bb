"""A model's chat template, applied to segments instead of text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from functools import lru_cache

from plato.engine import Segment
from plato.errors import InvalidRequestError, ModelError
from plato.prompting.rendering import Renderer, RenderError, hole
from plato.prompting.tokenizer import Tokenizer

_MARKUPS = 256
"""Pieces of markup whose tokens are kept; a template has a handful."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One message; its content is tokenised already."""

    role: str
    """`system`, `user` or `assistant`."""
    parts: tuple[Segment, ...]


class _Fit(IntEnum):
    """How well a kind of conversation fits a template that is filled in piece by piece."""

    UNUSABLE = 0
    """The template refuses it, or reorders or rewrites contents."""
    RENDERS = 1
    """Every conversation can be rendered, but a longer one does not begin with a shorter one."""
    CONTINUES = 2
    """Rendering n messages is a prefix of rendering n + 1."""


class ChatTemplate:
    """Puts a template's markup around turns, each piece a segment of its own.

    The template renders holes in place of contents, and the text between them is the markup: what
    is in a content can never become markup. `continues` says whether a decoded answer can be
    followed by another user turn as it stands; where it is False (Qwen 3 takes the thinking out
    of older turns) each conversation has to be rendered anew, with `open`.

    A template without a system role, or one that moves the system message along with the
    conversation, gets the system text in front of the next user turn instead.
    """

    def __init__(self, tokenizer: Tokenizer, *, today: datetime | None = None) -> None:
        """`today` is for templates that state a date; default: the clock, read once.

        Raises `ModelError` if the template cannot be used.
        """
        self._markup = lru_cache(maxsize=_MARKUPS)(
            lambda text: Segment(tokenizer.markup(text), public=True)
        )
        self._renderer = Renderer(tokenizer.hf, today or datetime.now())
        own, folded = self._fit(("system",)), self._fit(())
        if max(own, folded) is _Fit.UNUSABLE:
            raise ModelError(
                "the chat template of this model changes the contents of messages; set another "
                "chat "
                "template in its tokenizer"
            )
        self.system_role = own >= folded
        """Whether the system message is a turn of its own."""
        self.continues = max(own, folded) is _Fit.CONTINUES
        """Whether `follow_up` may be used."""
        front = ("system",) if self.system_role else ()
        *_, asks, answers = self._renderer.pieces((*front, "user", "assistant", "user"))
        self._asks, self._answers = self._markup(asks), self._markup(answers)
        closing = self._asks.tokens
        end = next((i for i, token in enumerate(closing) if token in tokenizer.end_tokens), None)
        self.end_token = None if end is None else closing[end]
        """What closes an assistant turn; None if the template has no such token."""
        self._asks_closed = self._asks if end is None else Segment(closing[end + 1 :])

    def open(self, turns: Sequence[Turn]) -> tuple[Segment, ...]:
        """The whole conversation, with an assistant turn opened at its end.

        Raises `InvalidRequestError` if the template refuses the order of the roles.
        """
        turns = turns if self.system_role else self._fold_system(turns)
        try:
            pieces = self._renderer.pieces(tuple(turn.role for turn in turns))
        except RenderError as error:
            raise InvalidRequestError(
                f"the chat template of this model rejects these messages ({error}); "
                "alternate user and assistant messages",
                param="messages",
            ) from error
        segments: list[Segment] = []
        for piece, turn in zip(pieces, turns, strict=False):
            segments += (self._markup(piece), *turn.parts)
        segments.append(self._markup(pieces[-1]))
        return _scoped(segments)

    def follow_up(self, parts: Sequence[Segment], *, closed: bool) -> tuple[Segment, ...]:
        """What follows a decoded answer: its end, a user turn, the next assistant turn opened.

        `closed` says that the decoded tokens already hold `end_token`. Private throughout.
        """
        if not self.continues:
            raise ModelError("the chat template of this model cannot continue a decoded answer")
        return _scoped([self._asks_closed if closed else self._asks, *parts, self._answers], False)

    def content(self, role: str, text: str) -> str:
        """`text` as the template writes it: some trim it, some take old thinking out."""
        if role == "assistant":
            before, after = [("user", hole(0))], [("user", hole(1))]
        elif role == "system" and self.system_role:
            before, after = [], [("user", hole(1))]
        else:
            role, before, after = "user", [], []
        try:
            pieces = self._renderer.render([*before, (role, hole(2)), *after], opened=True).split(
                hole(2)
            )
            written = self._renderer.render([*before, (role, text), *after], opened=True)
        except RenderError:
            return text
        left, right = pieces[0], pieces[-1]
        if not (written.startswith(left) and written.endswith(right)):
            return text
        return written[len(left) : len(written) - len(right)]

    def _fit(self, front: tuple[str, ...]) -> _Fit:
        """Try conversations of one to three questions, with the roles in `front` before them."""
        try:
            short, *longer = [
                self._renderer.pieces((*front, *("user", "assistant") * answers, "user"))
                for answers in range(3)
            ]
        except RenderError:
            return _Fit.UNUSABLE
        opened, asks = short[-1], longer[0][-2]
        known = short
        for pieces in longer:
            answer, ask, last = pieces[-3:]
            # Templates may put a space before an answer that the model decodes itself.
            continued = answer.startswith(opened) and not answer[len(opened) :].strip()
            if pieces[:-3] != known[:-1] or not continued or ask != asks or last != opened:
                return _Fit.RENDERS
            known = pieces
        return _Fit.CONTINUES

    def _fold_system(self, turns: Sequence[Turn]) -> list[Turn]:
        """Put the parts of system turns in front of the user turn that follows them."""
        folded: list[Turn] = []
        waiting: tuple[Segment, ...] = ()
        for turn in turns:
            if turn.role == "system":
                waiting += (*turn.parts, self._markup("\n\n"))
            elif turn.role == "user":
                folded.append(Turn("user", (*waiting, *turn.parts)))
                waiting = ()
            else:
                folded.append(turn)
        return folded


def _scoped(segments: Iterable[Segment], public: bool = True) -> tuple[Segment, ...]:
    """Without empty segments, and nothing public behind something private."""
    scoped = []
    for segment in segments:
        if segment.tokens:
            public = public and segment.public
            scoped.append(segment if segment.public == public else Segment(segment.tokens, public))
    return tuple(scoped)
