"""A model's chat template, applied to segments instead of text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import IntEnum
from functools import lru_cache

from plato.engine import Segment
from plato.errors import InvalidRequestError, ModelError
from plato.prompting.rendering import Renderer, RenderError, hole
from plato.prompting.tokenizer import Tokenizer

_MARKUPS = 256
"""Cache size: pieces of markup; a template has only a few."""

_AROUND: dict[str, tuple[list[tuple[str, str]], list[tuple[str, str]]]] = {
    "system": ([], [("user", hole(1))]),
    "user": ([], []),
    "assistant": ([("user", hole(0))], [("user", hole(1))]),
}
"""Turns before and after a message of each role when its content is rendered alone."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One message with tokenised content."""

    role: str
    """`system`, `user` or `assistant`."""
    parts: tuple[Segment, ...]


class _Fit(IntEnum):
    """How far a template supports a kind of conversation in segments."""

    UNUSABLE = 0
    """The template rejects it, or reorders or changes contents."""
    RENDERS = 1
    """Conversations can be rendered, but a conversation is not a prefix of its continuation."""
    CONTINUES = 2
    """Rendering n messages is a prefix of rendering n + 1."""


class ChatTemplate:
    """Adds a template's markup around turns, each piece as a separate segment.

    The template is rendered with placeholders for contents, and the text between them is the
    markup: content can never become markup. If `continues`, a decoded answer can be followed by
    another user turn without rendering it again; otherwise (Qwen 3 removes the thinking from older
    turns) each conversation must be rendered from its start with `open`.

    If a template has no system role, or moves the system message within the conversation, the
    system text is placed before the next user turn instead.
    """

    def __init__(self, tokenizer: Tokenizer, *, today: datetime | None = None) -> None:
        """`today` is for templates that state a date; default: the clock, read once.

        Raises `ModelError` if the template cannot be used.
        """
        self._markup = lru_cache(maxsize=_MARKUPS)(
            lambda text: Segment(tokenizer.markup(text), public=True)
        )
        self._renderer = Renderer(tokenizer.config, today or datetime.now())
        self.thinks = self._renderer.thinks
        """Whether the model thinks before it answers, unless it is kept from it, as here."""
        self._edges = lru_cache(maxsize=len(_AROUND))(self._edges_of)
        own, folded = self._fit(("system",)), self._fit(())
        if max(own, folded) is _Fit.UNUSABLE:
            raise ModelError(
                "the chat template of this model changes the contents of messages; set another "
                "chat "
                "template in its tokenizer"
            )
        self.system_role = own >= folded
        """Whether the system message is a separate turn."""
        self.continues = max(own, folded) is _Fit.CONTINUES
        """Whether `follow_up` may be used."""
        front = ("system",) if self.system_role else ()
        *_, asks, answers = self._renderer.pieces((*front, "user", "assistant", "user"))
        self._asks, self._answers = self._markup(asks), self._markup(answers)
        closing = self._asks.tokens
        end = next((i for i, token in enumerate(closing) if token in tokenizer.end_tokens), None)
        self.end_token = None if end is None else closing[end]
        """Token that closes an assistant turn; None if the template has none."""
        self._asks_closed = self._asks if end is None else Segment(closing[end + 1 :])

    def open(self, turns: Sequence[Turn]) -> tuple[Segment, ...]:
        """The whole conversation, with an assistant turn opened at its end.

        Raises `InvalidRequestError` if the template rejects the order of the roles.
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
            segments += (self._markup(piece), *_of(turn.role, turn.parts))
        segments.append(self._markup(pieces[-1]))
        return _scoped(segments)

    def follow_up(self, parts: Sequence[Segment], *, closed: bool) -> tuple[Segment, ...]:
        """The segments after a decoded answer: its end, a user turn, an opened assistant turn.

        `closed`: the decoded tokens already end with `end_token`. All segments are private.
        """
        if not self.continues:
            raise ModelError("the chat template of this model cannot continue a decoded answer")
        asked = _of("user", parts)
        return _scoped([self._asks_closed if closed else self._asks, *asked, self._answers], False)

    def content(self, role: str, text: str) -> str:
        """`text` as the template writes it: some trim it, some remove old thinking."""
        if role == "system" and not self.system_role:
            role = "user"
        before, after = _AROUND[role]
        try:
            left, right = self._edges(role)
            written = self._renderer.render([*before, (role, text), *after], opened=True)
        except RenderError:
            return text
        if not (written.startswith(left) and written.endswith(right)):
            return text
        return written[len(left) : len(written) - len(right)]

    def _edges_of(self, role: str) -> tuple[str, str]:
        """What the template writes before and after a content, between the turns of `_AROUND`."""
        before, after = _AROUND[role]
        written = self._renderer.render([*before, (role, hole(2)), *after], opened=True)
        left, *_, right = written.split(hole(2))
        return left, right

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
            # Templates may write a space before an answer that the model otherwise decodes.
            continued = answer.startswith(opened) and not answer[len(opened) :].strip()
            if pieces[:-3] != known[:-1] or not continued or ask != asks or last != opened:
                return _Fit.RENDERS
            known = pieces
        return _Fit.CONTINUES

    def _fold_system(self, turns: Sequence[Turn]) -> list[Turn]:
        """Move the content of system turns to the beginning of the next user turn."""
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
    """Drop empty segments, and make every segment after a private one private."""
    scoped = []
    for segment in segments:
        if segment.tokens:
            public = public and segment.public
            scoped.append(replace(segment, public=public))
    return tuple(scoped)


def _of(role: str, parts: Iterable[Segment]) -> tuple[Segment, ...]:
    """The parts of a message of this role."""
    return tuple(replace(part, role=role) for part in parts)
