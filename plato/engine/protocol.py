"""The contract between an engine, which runs a model, and its callers.

Everything above the engine (planner, scheduler, deployments) uses only these types. They are plain
frozen dataclasses, because they cross process boundaries.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

from plato.engine.capabilities import Capabilities
from plato.engine.prompt import Prompt
from plato.engine.step_times import NOT_MEASURED, StepCurve

if TYPE_CHECKING:
    from numpy.typing import NDArray


class FinishReason(StrEnum):
    """Why a sequence ended."""

    STOP = "stop"
    """The model ended its turn, a stop string matched, or the grammar is complete."""
    LENGTH = "length"
    """The token budget was used up."""
    CANCELLED = "cancelled"
    """The consumer cancelled, or its lease expired."""


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How a token is sampled. The defaults are greedy.

    Applied in this order: `logit_bias`; the penalties, for tokens already in the *output* (of the
    prompt only `penalised`); the grammar; `temperature`; `min_p`, `top_k` and `top_p`, each on what
    the previous one kept. At temperature 0 the last three have no effect.

    Random numbers are keyed by (`seed`, `GenerateRequest.node`, position), so a request gives the
    same text alone, batched, or resumed on another engine.
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
    """Token ids exempt from the penalties (separators of a plan, for example)."""
    penalised: tuple[int, ...] = ()
    """Token ids that count as one occurrence in the output before it begins (vLLM counts all tokens
    of the prompt)."""
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
    """Subtracted from a token's logit once for each of its occurrences in the output."""
    logit_bias: tuple[tuple[int, float], ...] = ()
    """(token id, value added to its logit), at every position (OpenAI's API reference)."""

    @property
    def penalises(self) -> bool:
        """Whether any penalty has an effect."""
        return (
            self.repetition_penalty != 1.0
            or self.presence_penalty != 0.0
            or self.frequency_penalty != 0.0
        )


@dataclass(frozen=True, slots=True)
class StopConditions:
    """What ends a sequence before its token budget is used up."""

    end_tokens: bool = True
    """Stop at the model's end-of-turn tokens; False ignores them (benchmarks)."""
    strings: tuple[str, ...] = ()
    """Stop when one of these appears in the output text; the text is cut before it. The match that
    ends first counts (see `StopMatcher`)."""
    sentence_from: int | None = None
    """From this many output tokens on, stop after the end of a sentence or line, with finish reason
    `length`: what would be cut ends there."""


@dataclass(frozen=True, slots=True)
class Grammar:
    """One language in the notations that decoders read; each engine uses the one it knows."""

    lark: str
    """llguidance's dialect of Lark, or its JSON form."""
    gbnf: str = ""
    """GBNF of llama.cpp, which xgrammar reads as EBNF; empty: it is not known in this notation."""
    json_schema: str = ""
    """JSON schema; empty: it is no language of JSON texts."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The consumer of a sequence. Unless renewed within `ttl_s` seconds, the engine cancels it.

    `owner` identifies a consumer process, not a request: one renewal covers all its sequences.
    """

    owner: str
    ttl_s: float


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """One sequence to decode."""

    run_id: str
    node: int
    prompt: Prompt
    max_tokens: int
    """Budget of output tokens, including `emitted`."""
    attempt: int = 0
    """Number of earlier attempts at this node; later attempts pass `emitted`."""
    emitted: tuple[int, ...] = ()
    """Output tokens of an earlier attempt. They count as *output*: penalties, grammar, budget,
    stop matching, random numbers and the detokeniser resume behind them."""
    sampling: SamplingParams = field(default_factory=SamplingParams)
    stop: StopConditions = field(default_factory=StopConditions)
    grammar: Grammar | None = None
    """What the output must match."""
    script: tuple[int, ...] = ()
    """Output tokens that replace the sampled ones, one step each as usual (to benchmark equal
    work). With a grammar they must match it, and tokens that it forces take no step."""
    run_began_unix_s: float = 0.0
    """When the run was admitted. Earlier runs of a tenant are served first."""
    priority: int = 0
    """Higher is served first, among the sequences of a run."""
    branch: bool = False
    """Whether it is more than a sequential answer needs: a plan, or another node than the first of
    its run. It may be delayed where it delays other runs."""
    lease: Lease | None = None
    group_s: float = 0.0
    """Tokens are sent together at the multiples of this many seconds; the first token, the last,
    and one that ends a line are sent at once. Saves messages between processes."""
    score: tuple[int, ...] = ()
    """Token ids whose log probabilities as the first output token are reported (`Chunk.scores`)."""
    source: str = ""
    """A replica to transfer the KV of a longer prefix of the prompt from; empty: compute what is
    not cached."""
    source_tokens: int = 0
    """Leading prompt tokens that `source` is expected to have cached."""
    keep: int | None = None
    """When the sequence finishes without being cancelled, pin its prompt and output for its run at
    this distance (see `Engine.pin`); `None`: do not pin."""


@dataclass(frozen=True, slots=True)
class Load:
    """Load of a replica, in tokens and sequences."""

    running: int = 0
    """Sequences decoding."""
    waiting: int = 0
    """Sequences in the queue."""
    prefill_tokens: int = 0
    """Prompt tokens not computed yet."""
    kv_free: int = 0
    """KV tokens that are free or evictable."""
    places: int = 0
    """Sequences that can decode side by side; 0: unknown."""
    runs: int = 0
    """Runs that its sequences are of."""
    step_times: StepCurve = NOT_MEASURED
    """Of decode steps, as measured by the engine; empty: by nobody."""
    prefill_s: float = 0.0
    """Seconds that each prompt token adds to a step; 0: not measured."""
    kv_evictable: int = 0
    """The part of `kv_free` that is cached and evictable."""
    kv_capacity: int = 0
    """Total KV tokens of its budget; 0: unknown."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a sequence's output.

    The first chunk of every stream is an acknowledgement without tokens, sent at once: it names
    the replica. `offset + len(tokens)` of one chunk is the `offset` of the next; an attempt with
    `emitted` tokens starts at `offset == len(emitted)`.
    """

    run_id: str
    node: int
    attempt: int
    offset: int
    """Position of the first token of this chunk in the node's output."""
    tokens: tuple[int, ...]
    text: str
    """Text that these tokens completed. Incomplete characters and what could begin a stop string
    are held back, so the text may lag behind the tokens."""
    finish: FinishReason | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Prompt tokens whose KV was cached."""
    replica: str = ""
    epoch: str = ""
    """Incarnation of the replica: what was known of its KV in another epoch is void."""
    load: Load = field(default_factory=Load)
    scores: tuple[float, ...] = ()
    """Log probabilities of `GenerateRequest.score`, after the grammar; -inf: impossible. Only in
    the chunk with offset 0."""
    steps: int = 0
    """Decode steps of this sequence so far; fewer than its tokens where a grammar forced some."""


@dataclass(frozen=True, slots=True)
class EngineStats:
    """Counters since the engine started, and its current state."""

    model: str
    epoch: str
    dtype: str
    context_length: int
    kv_capacity: int
    """KV tokens of the budget."""
    kv_used: int
    """KV tokens in use or cached."""
    load: Load
    steps: int
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    capabilities: Capabilities
    idle_s: float = 0.0
    """Seconds since the last step ended."""
    live: tuple[tuple[str, int], ...] = ()
    """(run, node) of every waiting or running sequence."""
    preemptions: int = 0
    """Sequences preempted to free KV for others. If it keeps rising, the KV budget is too small for
    the concurrency."""
    evicted_tokens: int = 0
    """KV tokens evicted."""
    imported_tokens: int = 0
    """Prompt tokens whose KV was transferred from another engine."""
    recomputed_tokens: int = 0
    """Tokens recomputed after a preemption because they had been evicted."""
    step_sequences: int = 0
    """Sequences that got a token, summed over all steps; divided by `steps`, the mean batch
    width."""
    busy_s: float = 0.0
    """Seconds spent in steps."""
    kv_bytes_per_token: int = 0
    """KV bytes of one token."""
    available: bool = True
    """Whether the engine answered last time, if it is in another process."""
    problem: str = ""
    """Why it is not available, or takes nothing now, if that is known."""


@dataclass(frozen=True, slots=True)
class StoredPrefix:
    """A named prefix whose KV is cached."""

    chain: bytes
    """Chained hash of its last segment (see `Prompt.hashes`)."""
    tokens: int
    """Its length."""


@dataclass(frozen=True, slots=True)
class KVEventBatch:
    """Prefixes that an engine has stored and removed since its previous batch."""

    number: int
    """Counts the batches of one epoch from 1: a gap means that a batch was lost."""
    stored: tuple[StoredPrefix, ...] = ()
    removed: tuple[bytes, ...] = ()
    """Chained hashes."""
    snapshot: bool = False
    """`stored` is everything that is cached, as of batch `number` or later."""


@dataclass(frozen=True, slots=True)
class KVPiece:
    """KV of consecutive tokens of a prompt, to transfer to another engine of the same model."""

    start: int
    """Position of the first token."""
    stop: int
    """One past the position of the last token."""
    keys: NDArray[Any]
    """[layers, tokens, KV heads, head dimension], in the engine's own type."""
    values: NDArray[Any]
    """Same shape and type as `keys`."""
    dtype: str
    fingerprint: str
    """Of the model that computed it, with the engine's own precision."""


class Engine(Protocol):
    """Runs one model.

    All methods may be called from any asyncio task; an engine computes in its own thread.
    """

    @property
    def epoch(self) -> str:
        """Random identifier of this incarnation of the engine."""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """What it can do; does not change within an epoch."""
        ...

    def generate(self, request: GenerateRequest) -> AsyncGenerator[Chunk]:
        """Decode one sequence.

        Closing the iterator cancels the sequence. Raises `RequestRefusedError` if the request can
        never be served, `OtherModelError` if its prompt is for another model, `EngineBusyError` if
        the queue is full (possibly after the acknowledgement), and `EngineClosedError` if the
        engine stops.
        """
        ...

    def renew(self, owner: str, ttl_s: float) -> None:
        """Extend the lease of all sequences of `owner` to `ttl_s` seconds from now."""
        ...

    def cancel(self, run_id: str, node: int | None = None) -> None:
        """Cancel a run's sequences, or one node's."""
        ...

    def cached_prefix(self, prompt: Prompt) -> int:
        """Number of leading tokens of `prompt` whose KV is cached now."""
        ...

    def pin(self, run_id: str, prompt: Prompt, distance: int) -> None:
        """Evict the cached part of `prompt` after everything that is not pinned.

        `distance` is how soon the run needs it: the number of its nodes that must finish before.
        When only pinned KV is left, the greatest distance is evicted first: a pin is a priority,
        never a lock, so it blocks no sequence. Pins are bounded in number and time.
        """
        ...

    def release(self, run_id: str) -> None:
        """Drop all pins of a run."""
        ...

    def stats(self) -> EngineStats:
        """Counters and state; raises `EngineClosedError` if the engine has failed."""
        ...

    async def export_kv(self, prompt: Prompt, start: int) -> KVPiece | None:
        """KV of the cached part of `prompt` from position `start` on; `None` if there is none."""
        ...

    async def import_kv(self, prompt: Prompt, piece: KVPiece) -> int:
        """Store KV that another engine of the same model has computed.

        Returns the number of tokens stored: 0 if `piece` is of another model or does not fit, if
        the prefix before it is not cached, if another sequence is computing it, or if there is not
        enough free or evictable memory.
        """
        ...

    async def kv_snapshot(self) -> KVEventBatch:
        """All named prefixes that are cached."""
        ...

    async def take_kv_events(self) -> KVEventBatch | None:
        """KV events since the last call; `None` if there are none. For one publisher per engine."""
        ...

    async def close(self) -> None:
        """Cancel all sequences and stop. Idempotent."""
        ...
