"""Every test of manifests runs for every overlay."""

from __future__ import annotations

import pytest

from tests.k8s.rendering import OVERLAYS, Manifests, render


@pytest.fixture(params=OVERLAYS)
def manifests(request: pytest.FixtureRequest) -> Manifests:
    return render(request.param)
