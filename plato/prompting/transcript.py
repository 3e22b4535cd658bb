"""The `transcript` layout: a new conversation in which the nodes are written.

The last user turn has the question and the node's instruction. A node with a dependency continues
the conversation of the dependency, whose KV is already cached:

    system     the caller's system prompt
    (history)
    user       question, "write about d"
    assistant  the decoded tokens of node d
    user       the other dependencies' texts, "write about n"
    assistant
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

from plato.engine import Prompt, Segment
from plato.errors import ContextLengthError
from plato.prompting import wording
from plato.prompting.quoting import cut_middle, fair_share
from plato.prompting.template import ChatTemplate, Turn
from plato.prompting.tokenizer import Tokenizer
from plato.runs import Message, Node, PlanGraph

ASKED_TOKENS = 256
"""Of a longer question a part restates little, and penalties of many tokens cost time."""


@dataclass(frozen=True, slots=True)
class NodeText:
    """A finished node, as seen by its dependents."""

    number: int
    tokens: tuple[int, ...]
    """Decoded token ids from the engine; the last one may be an end-of-turn token."""
    text: str


@dataclass(frozen=True, slots=True)
class NodePrompt:
    """The prompt of a node."""

    prompt: Prompt
    continues: int | None
    """The dependency whose conversation the prompt continues."""
    sees: tuple[int, ...]
    """Every node whose text is in the prompt, ascending."""
    shortened: tuple[int, ...]
    """Nodes whose text was cut to fit the context, ascending; those not in `sees` were left out."""
    asked: frozenset[int] = frozenset()
    """Word tokens of the question without those of the node's title: parts should not restate it;
    none of a long question."""
    seen: frozenset[int] = frozenset()
    """Tokens of the texts of `sees`."""


class TranscriptLayout:
    """The layout for one model."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        template: ChatTemplate,
        context_length: int,
        fingerprint: str = "",
        base_fingerprint: str | None = None,
    ) -> None:
        """For the model whose tokenizer and template these are.

        `fingerprint` is of that model with its adapter, and `base_fingerprint` of that without it,
        which writes what is not planned; default: it has no adapter.
        """
        self._tokenizer = tokenizer
        self._template = template
        self._context_length = context_length
        self._fingerprint = fingerprint
        self._base_fingerprint = fingerprint if base_fingerprint is None else base_fingerprint

    def sequential(self, messages: Sequence[Message], tenant: str) -> Prompt:
        """The ordinary chat prompt of `messages`. Raises `ContextLengthError`."""
        segments = self._template.open([self._turn(message) for message in messages])
        prompt = Prompt(segments, tenant, self._base_fingerprint)
        _require_room(prompt, 1, self._context_length)
        return prompt

    def raw(self, messages: Sequence[Message], tenant: str) -> Prompt:
        """The text of the only message, to be continued. Raises `ContextLengthError`."""
        (message,) = messages
        text = (*self._tokenizer.beginning, *self._tokenizer.text(message.content))
        prompt = Prompt((Segment(text),), tenant, self._base_fingerprint)
        _require_room(prompt, 1, self._context_length)
        return prompt

    def start(
        self, messages: Sequence[Message], tenant: str, skeleton: bool = False
    ) -> TranscriptConversation:
        """Start the prompts of a run; the last message is the question.

        `skeleton` ignores dependencies. Raises `ContextLengthError` if the question leaves no room
        for an answer.
        """
        *earlier, question = messages
        asked = self._template.content("user", question.content)
        return TranscriptConversation(
            self._tokenizer,
            self._template,
            self._context_length,
            history=tuple(map(self._turn, earlier)),
            question=(self._segment(asked), self._segment(wording.BEFORE_ASKING)),
            tenant=tenant,
            fingerprint=self._fingerprint,
            skeleton=skeleton,
        )

    def public_prefixes(self) -> Iterator[Prompt]:
        """The markup that prompts start with, where the caller has no system prompt."""
        segments = self._template.open([Turn("user", (self._segment("x"),))])
        public = tuple(takewhile(lambda segment: segment.public, segments))
        for name in dict.fromkeys((self._fingerprint, self._base_fingerprint)):
            yield Prompt(public, fingerprint=name)

    def _turn(self, message: Message) -> Turn:
        text = self._template.content(message.role, message.content)
        return Turn(message.role, (self._segment(text),))

    def _segment(self, text: str) -> Segment:
        return Segment(self._tokenizer.text(text))


class TranscriptConversation:
    """The prompts of one run; keeps one for every requested node, for the lifetime of the run.

    Deterministic: the same question, plan, texts and budgets give the same prompts, in whatever
    order nodes finish and are requested.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        template: ChatTemplate,
        context_length: int,
        *,
        history: tuple[Turn, ...],
        question: tuple[Segment, ...],
        tenant: str,
        fingerprint: str,
        skeleton: bool,
    ) -> None:
        self._tokenizer = tokenizer
        self._template = template
        self._context_length = context_length
        self._history = history
        self._question = question
        self._asked = self._words(question[0].tokens)
        self._tenant = tenant
        self._fingerprint = fingerprint
        self._skeleton = skeleton
        self._prompts: dict[int, NodePrompt] = {}
        opened = self._open(())
        _require_room(opened, 1, context_length)
        asking = Turn("user", question[:1])
        self.length = sum(len(s.tokens) for s in template.open([*history, asking]))
        """Tokens of the caller's conversation as an ordinary prompt, without ours."""
        self.room = context_length - len(opened)
        """Tokens that the question leaves for an instruction, other texts and the answer."""

    def node_prompt(
        self,
        graph: PlanGraph,
        number: int,
        finished: Mapping[int, NodeText],
        budget: Callable[[Node], int],
    ) -> NodePrompt:
        """The prompt of node `number`.

        `finished` must contain all direct and indirect dependencies. `budget` is how many tokens of
        a node are decoded at most; it is also asked about dependencies that were never requested,
        because another scheduler decoded them. The prompt of a node is built once; later calls
        return the same one. Raises `ContextLengthError` if the question itself leaves too little
        room.
        """
        if number not in self._prompts:
            made = self._build(graph, number, finished, budget)
            title = graph[number].title
            # Tokenizers encode a word at the start of a text in another way than after a space.
            asked = self._asked.difference(self._tokenizer.text(f"{title} {title} {title.lower()}"))
            texts = (self._decoded(finished[other])[0] for other in made.sees)
            seen = frozenset[int]().union(*texts).difference(self._tokenizer.end_tokens)
            self._prompts[number] = replace(made, asked=asked, seen=seen)
        return self._prompts[number]

    def _build(
        self,
        graph: PlanGraph,
        number: int,
        finished: Mapping[int, NodeText],
        budget: Callable[[Node], int],
    ) -> NodePrompt:
        node = graph[number]
        max_tokens = budget(node)
        limit = self._context_length - max_tokens
        length = node.length or wording.fitting_length(max_tokens)
        instruction = self._segment(wording.instruction(node.title, length))
        fresh = self._open((instruction,))
        _require_room(fresh, max_tokens, self._context_length)
        dependencies = () if self._skeleton else tuple(sorted(node.dependencies))
        if not dependencies:
            return NodePrompt(fresh, None, (), ())
        best: tuple[int, NodePrompt] | None = None
        for dependency in dependencies if self._template.continues else ():
            earlier = self.node_prompt(graph, dependency, finished, budget)
            new, candidate = self._continue(
                graph, number, dependency, earlier, finished, instruction
            )
            # Strictly fewer: ties go to the smallest number.
            if len(candidate.prompt) <= limit and (best is None or new < best[0]):
                best = new, candidate
        if best is not None:
            return best[1]
        return self._quote_all(graph, number, finished, instruction, limit - len(fresh))

    def _continue(
        self,
        graph: PlanGraph,
        number: int,
        dependency: int,
        earlier: NodePrompt,
        finished: Mapping[int, NodeText],
        instruction: Segment,
    ) -> tuple[int, NodePrompt]:
        """Continue the conversation of `dependency`; returns (added tokens, prompt)."""
        decoded, closed = self._decoded(finished[dependency])
        seen = {*earlier.sees, dependency}
        others = [other for other in graph[number].dependencies if other not in seen]
        quotes = [self._quote(graph, finished[other]) for other in sorted(others)]
        asked = (*quotes, instruction)
        turn = self._template.follow_up(asked, closed=closed)
        prompt = earlier.prompt.extended(
            *([Segment(decoded, role="assistant")] if decoded else []), *turn
        )
        new = sum(len(segment.tokens) for segment in turn)
        sees = tuple(sorted(seen.union(others)))
        shortened = tuple(cut for cut in earlier.shortened if cut not in others)
        return new, NodePrompt(prompt, dependency, sees, shortened)

    def _quote_all(
        self,
        graph: PlanGraph,
        number: int,
        finished: Mapping[int, NodeText],
        instruction: Segment,
        room: int,
    ) -> NodePrompt:
        """Start from the question and quote the dependencies, within `room` tokens in total."""
        dependencies = sorted(graph[number].dependencies)
        quotes = {other: self._quote(graph, finished[other]) for other in dependencies}
        share = fair_share([len(quote.tokens) for quote in quotes.values()], room)
        shortened = tuple(other for other in dependencies if len(quotes[other].tokens) > share)
        for other in shortened:
            quotes[other] = self._quote(graph, finished[other], share)
        sees = tuple(other for other in dependencies if quotes[other].tokens)
        prompt = self._open((*quotes.values(), instruction))
        return NodePrompt(prompt, None, sees, shortened)

    def _open(self, asked: tuple[Segment, ...]) -> Prompt:
        """A conversation whose last user turn has the question and `asked`."""
        last = Turn("user", (*self._question, *asked))
        segments = self._template.open([*self._history, last])
        return Prompt(segments, self._tenant, self._fingerprint)

    def _quote(self, graph: PlanGraph, node: NodeText, length: int | None = None) -> Segment:
        """A finished text under its title, cut to `length` tokens; empty if that is too short."""
        head = self._tokenizer.text(wording.quote_heading(graph[node.number].title))
        text = self._tokenizer.text(node.text.strip())
        tail = self._tokenizer.text(wording.BEFORE_ASKING)
        if length is not None:
            mark = self._tokenizer.text(wording.CUT)
            text = cut_middle(text, mark, length - len(head) - len(tail))
            if not text:
                return Segment(())
        return Segment((*head, *text, *tail))

    def _words(self, question: Sequence[int]) -> frozenset[int]:
        """The tokens of a question that contain a letter; none of a long one."""
        if len(question) > ASKED_TOKENS:
            return frozenset()
        texts = {token: self._tokenizer.decode((token,)) for token in question}
        return frozenset(token for token, text in texts.items() if any(map(str.isalpha, text)))

    def _decoded(self, node: NodeText) -> tuple[tuple[int, ...], bool]:
        """A node's tokens as its turn in a conversation, and whether they close it.

        Tokens after the node's text (a stop string, an incomplete character) are dropped, as is an
        end token that is not the template's.
        """
        body = node.tokens
        while body and body[-1] in self._tokenizer.end_tokens:
            body = body[:-1]
        text = self._tokenizer.decode(body)
        if len(text) > len(node.text) and text.startswith(node.text):
            kept = bisect_right(
                range(len(body) + 1),
                len(node.text),
                key=lambda count: len(self._tokenizer.decode(body[:count])),
            )
            return body[: kept - 1], False
        end = node.tokens[len(body) : len(body) + 1]
        closed = bool(end) and end[0] == self._template.end_token
        return (*body, *end) if closed else body, closed

    def _segment(self, text: str) -> Segment:
        return Segment(self._tokenizer.text(text))


def _require_room(prompt: Prompt, max_tokens: int, context_length: int) -> None:
    """Raise `ContextLengthError` unless `max_tokens` fit after `prompt`."""
    if len(prompt) + max_tokens > context_length:
        raise ContextLengthError(
            f"the prompt has {len(prompt)} tokens and the output may have {max_tokens}, but the "
            f"context of the model is {context_length} tokens; shorten the question or ask for "
            "fewer output tokens",
            param="messages",
        )
