"""How answers are planned, bounded, sent and admitted."""

from __future__ import annotations

from pydantic import Field

from plato.settings.values import MAX_NODES, Section


class PlanningSettings(Section):
    """Plans, and the lengths of what they plan."""

    title = "Planning"

    max_nodes: int = Field(
        default=8,
        ge=2,
        le=MAX_NODES,
        description="Maximum number of parts of a plan, handed in or decoded.",
    )
    plan_parts: int = Field(
        default=4,
        ge=2,
        le=MAX_NODES,
        description="Number of parts that the model is asked for; lowered to `max_nodes`.",
    )
    plan_cache: int = Field(
        default=0,
        ge=0,
        description="Plans that each planner keeps, by tenant and conversation: a question that is "
        "asked again gets the same plan at once. 0: none.",
    )
    max_title_words: int = Field(
        default=12, ge=2, le=20, description="Maximum length of a decoded title."
    )
    split_threshold: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="`auto` splits if the model's probability of not splitting is at most this; "
        "default: as calibrated for the model.",
    )
    dependency_threshold: float | None = Field(
        default=None,
        description="A part gets dependencies if its log odds of needing no earlier part are at "
        "most this: the lower, the fewer dependencies; default: as calibrated for the model.",
    )
    node_max_tokens: int = Field(
        default=256, ge=1, description="Maximum number of tokens of a node, unless overridden."
    )
    sequential_max_tokens: int = Field(
        default=1024,
        ge=1,
        description="Maximum number of tokens of a sequential answer, unless overridden.",
    )


class DeadlineSettings(Section):
    """How long things may take."""

    title = "Deadlines"

    plan_deadline_s: float = Field(
        default=30.0, gt=0, description="Maximum time for a plan; then the answer is sequential."
    )
    node_deadline_s: float = Field(
        default=120.0, gt=0, description="Maximum time for one part, retries included."
    )
    run_deadline_s: float = Field(
        default=300.0, gt=0, description="Maximum time for an answer, and that requests may set."
    )
    lease_ttl_s: float = Field(
        default=1.2,
        gt=0.2,
        description="A decoder drops the sequences of a consumer that has not renewed its lease "
        "for "
        "this long.",
    )


class StreamingSettings(Section):
    """How tokens are sent."""

    title = "Streaming"

    stream_interval_s: float = Field(
        default=0.1,
        ge=0,
        description="Tokens are grouped over this interval before they are sent; a shorter "
        "interval "
        "costs more CPU.",
    )


class AdmissionSettings(Section):
    """How many runs there are at a time."""

    title = "Admission"

    max_runs: int = Field(
        default=64,
        ge=1,
        description="Maximum number of runs in flight per scheduler; one in eight is kept for "
        "tenants without a run.",
    )
    max_waiting_runs: int = Field(
        default=256, ge=0, description="Maximum number of runs waiting per scheduler."
    )
    patience_s: float = Field(
        default=10.0, gt=0, description="Maximum time that a run waits for admission."
    )


class LoadSettings(Section):
    """What plans may cost other runs."""

    title = "Load"

    branch_slowdown: float | None = Field(
        default=1.1,
        ge=1.0,
        description="How many times as long the steps of a decoder may take because parts are "
        "decoded side by side, while others there are answered sequentially; further parts wait. "
        "`None`: parts start at once, whatever that costs others.",
    )
    token_target_s: float | None = Field(
        default=None,
        gt=0,
        description="Target for the time between tokens: instead of `branch_slowdown`, parts are "
        "decoded side by side with other runs as long as steps take at most this long.",
    )
    first_text_target_s: float | None = Field(
        default=None,
        gt=0,
        description="Target for the time to first text: `auto` does not split answers that would "
        "miss it because of their plan.",
    )
