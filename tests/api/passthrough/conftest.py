"""Plato in front of one upstream."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.api.passthrough.fronts import Front, passing_front


@pytest.fixture
async def front() -> AsyncIterator[Front]:
    """For requests that are passed on."""
    async with passing_front() as opened:
        yield opened
