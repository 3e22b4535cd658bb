"""The `plato` object of a request."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from plato.api.wire import FAIL_FAST, TOKEN_COUNT, WireModel
from plato.runs import Length, Mode
from plato.settings import MAX_NODES, MAX_TITLE_CHARS

PartNumber = Annotated[int, Field(ge=0, le=MAX_NODES)]


class PlanNode(WireModel):
    """One part of a plan given by the caller."""

    title: str = Field(min_length=1, max_length=MAX_TITLE_CHARS)
    dependencies: Annotated[list[PartNumber], FAIL_FAST] = Field(
        default_factory=list,
        max_length=MAX_NODES,
        description="Numbers of earlier parts whose text this part needs.",
    )
    number: PartNumber | None = Field(
        default=None, description="Position in the plan: 1, 2, 3, ..."
    )
    max_tokens: int | None = Field(
        default=None, ge=1, lt=TOKEN_COUNT, description="Maximum number of tokens of this part."
    )
    length: Length | None = Field(
        default=None,
        strict=False,
        description="How long the part should be; it also sets the part's share of `max_tokens`.",
    )


class PlatoOptions(WireModel):
    """The `plato` object of a request."""

    mode: Mode = Field(
        default=Mode.AUTO,
        strict=False,
        description="`plato`: planned, with dependencies between parts; `skeleton`: planned, all "
        "parts independent; `sequential`: ordinary decoding; `auto`: the model chooses `plato` or "
        "`sequential`.",
    )
    max_nodes: int | None = Field(
        default=None,
        ge=2,
        le=MAX_NODES,
        description="Maximum number of parts; default: set by the deployment, which also says how "
        "many the model is asked for.",
    )
    plan: Annotated[list[PlanNode], FAIL_FAST] | None = Field(
        default=None,
        max_length=MAX_NODES,
        description="Use this plan instead of asking the model for one.",
    )
    decode_plan: bool = Field(
        default=False,
        description="Decode the given plan as if the model had written it (for benchmarks).",
    )
    headings: bool = Field(
        default=False, description="Write each part's title as a heading above it."
    )
    events: bool = Field(default=False, description="Also stream the events of every part.")
    reasoning: bool = Field(
        default=False,
        description="Send the plan that the model writes as `reasoning_content`, which many chat "
        "pages show before the answer.",
    )
    prompts: bool = Field(
        default=False, description="Include the prompt of every part in the response."
    )
    exact_lengths: bool = Field(
        default=False, description="Decode every part to exactly its max_tokens (for benchmarks)."
    )
    deadline_s: float | None = Field(
        default=None, gt=0, description="Deadline of the answer, in seconds."
    )
