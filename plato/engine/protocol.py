"""The contract between what runs a model and what asks it to.

An engine turns token ids into tokens with a KV cache. Everything above it (planner, scheduler,
deployments) speaks only these types. They are plain frozen dataclasses: they cross process
boundaries, and a test can write one down.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

from plato.engine.prompt import Prompt

if TYPE_CHECKING:
    from numpy.typing import NDArray


class FinishReason(StrEnum):
    """Why a sequence ended."""

    STOP = "stop"
    """The model ended its turn, a stop string matched, or the grammar was complete."""
    LENGTH = "length"
    """The token budget was used up."""
    CANCELLED = "cancelled"
    """The consumer cancelled, or its lease ran out."""


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How a token is chosen. The defaults are greedy.

    In this order: `logit_bias`; the penalties, for tokens already in the *output* (the prompt is
    not penalised); the grammar; `first_token_bias`; `temperature`; `min_p`, `top_k` and `top_p`,
    each over what the one before it kept. With temperature 0 the last three do not matter.

    Random numbers are keyed by (`seed`, `GenerateRequest.node`, position), so a request gives the
    same text alone, batched, or continued elsewhere.
    """

    temperature: float = 0.0
    """Divides the logits; 0 is greedy."""
    top_p: float = 1.0
    """Keeps the smallest set of the most likely tokens whose probabilities reach this (Holtzman
    et al., 2019, arXiv 1904.09751)."""
    seed: int = 0
    repetition_penalty: float = 1.0
    """Divides positive and multiplies negative logits of tokens in the output (Keskar et al.,
    2019, CTRL, arXiv 1909.05858, section 4.1)."""
    penalty_exempt: frozenset[int] = frozenset()
    """Token ids that the penalties leave alone (separators of a plan, for example)."""
    first_token_bias: tuple[tuple[int, float], ...] = ()
    """(token id, value added to its logit) at output position 0 only."""
    top_k: int = 0
    """Keeps the `top_k` most likely tokens (Fan et al., 2018, arXiv 1805.04833); 0 keeps all."""
    min_p: float = 0.0
    """Keeps tokens at least `min_p` times as likely as the most likely one (Nguyen et al., 2024,
    arXiv 2407.01082)."""
    presence_penalty: float = 0.0
    """Subtracted from the logits of tokens in the output: logit - presence_penalty *
    [count > 0] - frequency_penalty * count (OpenAI's API reference), after
    `repetition_penalty`."""
    frequency_penalty: float = 0.0
    """Subtracted from a token's logit once for each time it is in the output."""
    logit_bias: tuple[tuple[int, float], ...] = ()
    """(token id, value added to its logit) at every position (OpenAI's API reference)."""


@dataclass(frozen=True, slots=True)
class StopConditions:
    """What ends a sequence besides its token budget."""

    end_tokens: bool = True
    """Stop at the model's end-of-turn tokens. False decodes on to the budget (benchmarks)."""
    strings: tuple[str, ...] = ()
    """Stop when one of these appears in the output text; the text is cut before it."""


@dataclass(frozen=True, slots=True)
class Lease:
    """Who consumes a sequence. Without renewal for `ttl_s` seconds the engine cancels it.

    `owner` names a consumer process, not a request: one renewal serves all of its sequences.
    """

    owner: str
    ttl_s: float


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """One sequence to decode."""

    run: str
    node: int
    prompt: Prompt
    max_tokens: int
    """Budget of output tokens, `emitted` included."""
    attempt: int = 0
    """Counts the times this node was started; a later attempt brings `emitted`."""
    emitted: tuple[int, ...] = ()
    """Output tokens of an earlier attempt. They count as *output*: penalties, grammar, budget,
    stop matching, random numbers and the detokeniser go on from there."""
    sampling: SamplingParams = field(default_factory=SamplingParams)
    stop: StopConditions = field(default_factory=StopConditions)
    grammar: str | None = None
    """A Lark grammar (llguidance dialect) the output must match."""
    script: tuple[int, ...] = ()
    """Output tokens to take in place of those that would be chosen, one step each as ever (for
    measurements of equal work). Under a grammar they have to match it, and those that it forces
    are appended without a step."""
    priority: int = 0
    """Higher is admitted first."""
    lease: Lease | None = None
    group_s: float = 0.0
    """Tokens that come within this many seconds after a chunk go into the next one; the first
    token, the last, and one that ends a line are sent at once. Saves messages between
    processes."""
    report_first: int = 0
    """How many alternatives of the first output token to report, most likely first."""
    source: str = ""
    """A replica that should hold more of the prompt's KV than the one that is asked, and is worth
    getting it from; empty: compute what is not there."""
    source_tokens: int = 0
    """Leading prompt tokens that `source` should hold."""
    keep: int | None = None
    """When the sequence ends by itself, pin its prompt and output for its run at this distance
    (see `Engine.pin`); `None`: nobody will need them."""


@dataclass(frozen=True, slots=True)
class Load:
    """What a replica has to do, in tokens and sequences."""

    running: int = 0
    """Sequences decoding."""
    waiting: int = 0
    """Sequences admitted by nobody yet."""
    prefill_tokens: int = 0
    """Prompt tokens still to be computed."""
    kv_free: int = 0
    """Tokens of KV that are free or can be evicted."""
    useful_width: int = 0
    """Sequences that decode faster side by side than one after the other, by the step times that
    were measured here; 0: nothing is known."""
    kv_evictable: int = 0
    """Those tokens of `kv_free` that hold what somebody may ask for again."""
    kv_capacity: int = 0
    """Tokens of KV that its budget holds altogether; 0: nothing is known."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a sequence's output.

    The first chunk of every stream is an acknowledgement without tokens, sent at once: it tells
    the consumer where its sequence lives. `offset + len(tokens)` of one chunk is the `offset` of
    the next; an attempt that brought `emitted` starts at `offset == len(emitted)`.
    """

    run: str
    node: int
    attempt: int
    offset: int
    """Position of the first token of this chunk in the node's output."""
    tokens: tuple[int, ...]
    text: str
    """Text that these tokens completed. Bytes of an unfinished character and what could become a
    stop string are held back, so text may trail the tokens."""
    finish: FinishReason | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Prompt tokens whose KV this request did not have to compute."""
    replica: str = ""
    epoch: str = ""
    """Which life of the replica; KV handles of another epoch are void."""
    load: Load = field(default_factory=Load)
    first: tuple[tuple[int, float], ...] = ()
    """(token id, log probability) of the first token's alternatives, after grammar and before
    `first_token_bias`, in the chunk with offset 0, if asked for."""
    steps: int = 0
    """Model steps this sequence took part in for its output so far; fewer than its tokens where
    the grammar forced some."""


@dataclass(frozen=True, slots=True)
class EngineStats:
    """Counters since the engine started, and its state now."""

    model: str
    epoch: str
    dtype: str
    context_length: int
    kv_capacity: int
    """Tokens of KV the budget holds."""
    kv_used: int
    """Tokens of KV in use or cached."""
    load: Load
    steps: int
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    idle_s: float = 0.0
    """Seconds since the last step ended."""
    live: tuple[tuple[str, int], ...] = ()
    """(run, node) of every sequence that waits or decodes."""
    preemptions: int = 0
    """Times a sequence had to give its KV up for others, and wait. Many: the KV budget is too
    small for what is asked at once."""
    evicted_tokens: int = 0
    """Cached tokens that had to go for new ones."""
    imported_tokens: int = 0
    """Prompt tokens whose KV came from another engine."""
    recomputed_tokens: int = 0
    """Tokens computed again after a preemption, because they were evicted meanwhile."""
    step_sequences: int = 0
    """Sequences that got a token, summed over all steps: over `steps`, the mean batch width."""
    busy_s: float = 0.0
    """Seconds spent in steps."""
    kv_bytes_per_token: int = 0
    """Size of the KV of one token."""


@dataclass(frozen=True, slots=True)
class HeldPrefix:
    """A named prefix whose KV is there."""

    chain: bytes
    """Chained hash of its last segment (see `Prompt.hashes`)."""
    tokens: int
    """Its length."""


@dataclass(frozen=True, slots=True)
class HoldingsChange:
    """What an engine holds now that it did not, and the other way round."""

    number: int
    """Counts the changes of one epoch, from 1: a gap means that one was missed."""
    held: tuple[HeldPrefix, ...] = ()
    evicted: tuple[bytes, ...] = ()
    whole: bool = False
    """`held` is everything, as of change `number` or a little later."""


@dataclass(frozen=True, slots=True)
class KVPiece:
    """KV of some consecutive tokens of a prompt, on its way to another engine of the same model."""

    start: int
    """Position of the first token."""
    stop: int
    """One past the position of the last."""
    keys: NDArray[Any]
    """[layers, tokens, KV heads, head dimension], in the bits of the engine's own type."""
    values: NDArray[Any]
    """The same."""
    dtype: str


class Engine(Protocol):
    """Runs one model.

    All methods may be called from any asyncio task; an engine computes in a thread of its own.
    """

    @property
    def epoch(self) -> str:
        """Random name of this life of the engine."""
        ...

    def generate(self, request: GenerateRequest) -> AsyncGenerator[Chunk]:
        """Decode one sequence.

        Closing the iterator cancels the sequence. Raises `RequestRefusedError` where the request
        can never be served, `EngineBusyError` where too many wait already (perhaps only after the
        acknowledgement), and `EngineClosedError` when the engine stops.
        """
        ...

    def renew(self, owner: str, ttl_s: float) -> None:
        """Extend the lease of every sequence that `owner` consumes to `ttl_s` from now."""
        ...

    def cancel(self, run: str, node: int | None = None) -> None:
        """Cancel a run's sequences, or one node's."""
        ...

    def cached_prefix(self, prompt: Prompt) -> int:
        """How many leading tokens of `prompt` have their KV here now."""
        ...

    def pin(self, run: str, prompt: Prompt, distance: int) -> None:
        """Keep what is here of `prompt` from eviction while anything else can go.

        `distance` says how soon the run needs it: 0 for its next node, else how many of its nodes
        must end before. When only pinned KV is left to evict, what is needed last goes first: a
        pin is a priority, never a lock, so it keeps nobody from running. Pins are bounded in
        number and time, and a run may pin as often as it likes.
        """
        ...

    def release(self, run: str) -> None:
        """Drop all pins of a run."""
        ...

    def stats(self) -> EngineStats:
        """Counters and state."""
        ...

    async def export_kv(self, prompt: Prompt, start: int) -> KVPiece | None:
        """KV of what is here of `prompt` from position `start` on; `None` if that is nothing."""
        ...

    async def import_kv(self, prompt: Prompt, piece: KVPiece) -> int:
        """Take KV that another engine of the same model has computed.

        Returns how many tokens of it were taken: none where what is in front of them is missing,
        where somebody computes them already, or where there is no memory that nobody needs.
        """
        ...

    async def holdings(self) -> HoldingsChange:
        """Every named prefix that is here."""
        ...

    async def take_holdings_change(self) -> HoldingsChange | None:
        """What has changed since the last call. For the one publisher of an engine."""
        ...

    async def close(self) -> None:
        """Cancel everything and stop computing. Idempotent."""
        ...
