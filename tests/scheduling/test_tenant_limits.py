"""A tenant at its limit is told to come back, and others are answered."""

from __future__ import annotations

import pytest

from plato.prompting.model_tools import ModelTools
from plato.runs import Mode, RunFailed
from plato.scheduling.scheduler import GraphScheduler
from tests.scheduling.conftest import MakeScheduler
from tests.scheduling.helpers import ScriptedPool, collect, finished, question, watching

pytestmark = pytest.mark.hostile


async def refusal(scheduler: GraphScheduler, tenant: str) -> RunFailed:
    (failed,) = await collect(scheduler, question(Mode.SEQUENTIAL, tenant=tenant))
    assert isinstance(failed, RunFailed)
    assert (failed.status, failed.code) == (429, "rate_limit_exceeded")
    assert failed.retry_after_s
    return failed


async def test_a_tenant_may_have_so_many_runs_in_flight(
    make_scheduler: MakeScheduler, tools: ModelTools
) -> None:
    pool = ScriptedPool(tools)
    pool.hold(1)
    scheduler = make_scheduler(pool, max_tenant_runs=1)
    async with watching(scheduler, question(Mode.SEQUENTIAL, tenant="loud")) as watched:
        await watched.until(lambda: bool(pool.requests))
        assert "wait for one of them" in (await refusal(scheduler, "loud")).message
        pool.resume(1)
        finished(await collect(scheduler, question(Mode.SEQUENTIAL, tenant="quiet")))
    finished(await collect(scheduler, question(Mode.SEQUENTIAL, tenant="loud")))


async def test_a_tenant_may_have_so_many_tokens_a_minute(
    make_scheduler: MakeScheduler, tools: ModelTools
) -> None:
    scheduler = make_scheduler(ScriptedPool(tools), tenant_tokens_per_minute=10)
    report = finished(await collect(scheduler, question(Mode.SEQUENTIAL, tenant="loud")))
    assert report.billed_tokens > 10
    failed = await refusal(scheduler, "loud")
    # One token later there is something again.
    assert failed.retry_after_s == pytest.approx((report.billed_tokens - 9) * 6, abs=1)
    finished(await collect(scheduler, question(Mode.SEQUENTIAL, tenant="quiet")))
