"""What an engine can do, and what is lost where it cannot do what the built-in one can."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class PrefixSharing(StrEnum):
    """When a sequence can reuse the prefix that another one has computed."""

    COMPUTING = "computing"
    """While it is still being computed: siblings that arrive together compute it once."""
    COMPUTED = "computed"
    """Once it is computed: siblings have to wait for the first of them."""
    ENDED = "ended"
    """Once the sequence that computed it has ended: siblings compute it each on their own."""


class Scores(StrEnum):
    """What `Chunk.scores` are."""

    LOG_PROBABILITIES = "log_probabilities"
    RELATIVE = "relative"
    """Log probabilities among the named tokens alone: only their differences mean something."""
    NONE = "none"
    """Requests with `GenerateRequest.score` are refused."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an engine can do. Callers ask before they rely on it; see `losses`."""

    prefix_granularity: int
    """Cached prefixes are reused in multiples of this many tokens; 0: never."""
    prefix_sharing: PrefixSharing
    kv_events: bool
    """Whether KV events report what is cached. Otherwise they report what was sent, which the
    engine may have evicted."""
    kv_transfer: bool
    """`Engine.export_kv` and `Engine.import_kv`."""
    pins: bool
    """`Engine.pin` and `GenerateRequest.keep`."""
    grammars: frozenset[str]
    """Notations that it reads: names of the fields of `Grammar`. Empty: requests with a grammar
    are refused."""
    grammar_resumption: bool
    """Whether a grammar goes on after `GenerateRequest.emitted`. Otherwise such requests are
    refused."""
    forced_tokens: bool
    """Whether tokens that a grammar forces take no step."""
    scores: Scores
    keyed_seeds: bool
    """Whether random numbers are keyed as `SamplingParams` says. Otherwise a seed gives the same
    text only for the same request, and on some engines only in the same batch."""
    exempt_penalties: bool
    """`SamplingParams.penalty_exempt` and `penalised`. Otherwise penalties with exempt tokens are
    not applied, and others may count the prompt."""
    scripts: bool
    """`GenerateRequest.script`. Otherwise such requests are refused."""
    tenants: bool
    """Whether the cached prefixes of tenants are separated. Otherwise it is for one tenant."""
    priority: bool
    """Whether `GenerateRequest.priority` orders the sequences that it has accepted."""
    token_ids: bool
    """Whether it takes and gives token ids, so that prompts and outputs are exact. Otherwise it
    takes chat messages (`Prompt.messages`) and gives text."""
    public_sharing: bool = True
    """Whether tenants share what is public at the start of their prompts."""
    resumption: bool = True
    """Whether it goes on after `GenerateRequest.emitted`, or after an answer that the prompt
    begins. Otherwise such requests are refused."""
    thinking_off: bool = True
    """Whether a model that thinks before it answers is kept from it."""


BUILT_IN = Capabilities(
    prefix_granularity=1,
    prefix_sharing=PrefixSharing.COMPUTING,
    kv_events=True,
    kv_transfer=True,
    pins=True,
    grammars=frozenset({"lark"}),
    grammar_resumption=True,
    forced_tokens=True,
    scores=Scores.LOG_PROBABILITIES,
    keyed_seeds=True,
    exempt_penalties=True,
    scripts=True,
    tenants=True,
    priority=True,
    token_ids=True,
)
"""Of the built-in engine, with which others are compared."""


def losses(capabilities: Capabilities) -> tuple[str, ...]:
    """What is lost compared with the built-in engine, one clause each, for people."""
    granularity = capabilities.prefix_granularity
    outlines = not capabilities.grammars <= {"json_schema"}
    rules = (
        (granularity == 0, "no prefix is reused: every prompt is computed from its start"),
        (granularity > 1, f"prefixes are reused in blocks of {granularity} tokens"),
        (
            capabilities.prefix_sharing is PrefixSharing.COMPUTED,
            "parts that begin together wait until the first of them has computed what they share",
        ),
        (
            capabilities.prefix_sharing is PrefixSharing.ENDED,
            "parts that are decoded side by side each compute what they share",
        ),
        (
            not capabilities.kv_events,
            "placement goes by the prompts that were sent, not by what is cached",
        ),
        (not capabilities.kv_transfer, "KV is not transferred between decoders"),
        (not capabilities.pins, "KV that a run needs again may be evicted"),
        (
            not outlines,
            "plans are not decoded under a grammar"
            + (" but under a JSON schema" if capabilities.grammars else ""),
        ),
        (
            bool(capabilities.grammars) and not capabilities.grammar_resumption,
            "a plan that is interrupted is not resumed",
        ),
        (not capabilities.forced_tokens, "tokens without an alternative take a step each"),
        (
            capabilities.scores is Scores.RELATIVE,
            "decisions cost a request more, and their probabilities are relative",
        ),
        (
            capabilities.scores is Scores.NONE,
            "no decisions by probabilities: `auto` never splits"
            + (", and plans have no dependencies" if outlines else ""),
        ),
        (not capabilities.keyed_seeds, "a seed does not give the same text again after a retry"),
        (
            not capabilities.exempt_penalties,
            "titles are decoded without a repetition penalty, and other penalties count the prompt",
        ),
        (not capabilities.scripts, "scripted outputs (for benchmarks) are refused"),
        (
            not capabilities.tenants,
            "it is for one tenant: cached prefixes are not separated",
        ),
        (
            not capabilities.public_sharing,
            "the instructions before a question are computed for each API key anew",
        ),
        (not capabilities.priority, "decisions and earlier runs are not preferred"),
        (
            not capabilities.token_ids,
            "prompts are sent as chat messages, and the tokens of their answers are counted here",
        ),
        (
            not capabilities.resumption,
            "a part that is interrupted begins again, and fails if its text was shown already",
        ),
        (
            not capabilities.thinking_off,
            "a model that thinks before it answers spends the budget of plans and parts on it",
        ),
    )
    return tuple(clause for lost, clause in rules if lost)
