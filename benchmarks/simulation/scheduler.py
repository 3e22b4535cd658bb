"""The real graph scheduler, for decoders that decode no text."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from plato.context import ContextStore
from plato.engine import DecoderPool
from plato.planning.protocol import PlanEvent, PlanRequest
from plato.prompting.model_tools import ModelTools
from plato.scheduling.placement import KVAware
from plato.scheduling.scheduler import GraphScheduler
from plato.settings import Settings


def new_scheduler(
    tools: ModelTools, pool: DecoderPool, settings: Settings, store: ContextStore
) -> GraphScheduler:
    """A scheduler whose runs bring their plans, and end only by themselves."""
    patient = settings.model_copy(
        update={
            "max_runs": 100_000,
            "max_waiting_runs": 100_000,
            "node_deadline_s": 1e6,
            "run_deadline_s": 1e6,
            "silence_s": 1e6,
            "ownership_ttl_s": 1e5,
        }
    )
    return GraphScheduler(
        patient,
        _Tools(
            tools.folder,
            tools.tokenizer,
            tools.template,
            tools.context_length,
            tools.fingerprint,
            tools.base_fingerprint,
            tools.calibration,
            tools.sampling,
        ),
        planner=_NoPlanner(),
        pool=pool,
        store=store,
        policy=KVAware(),
    )


class _Tools(ModelTools):
    """Simulated tokens have no text of their own."""

    def text(self, tokens: tuple[int, ...]) -> str:
        """A dot for each."""
        return "." * len(tokens)


class _NoPlanner:
    """Every question brings its plan."""

    def plan(self, request: PlanRequest) -> AsyncGenerator[PlanEvent]:
        """Never asked."""
        raise AssertionError("a question without a plan")
