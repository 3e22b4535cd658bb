"""Engines that cannot separate what they have cached are for one tenant."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from plato.api.access.tenants import refuse_shared_cache
from plato.engine.capabilities import BUILT_IN
from plato.errors import SettingsError
from plato.settings import Settings

SHARED = replace(BUILT_IN, tenants=False)
KEYS = tuple(f"a-key-of-sixteen-characters-{number}" for number in range(2))
SEVERAL: tuple[dict[str, Any], ...] = (
    {"api_keys": f"shop={KEYS[0]},lab={KEYS[1]}"},
    {"api_keys_file": "keys.txt"},
    {"tenant_header": "X-Tenant"},
)


@pytest.mark.parametrize("fields", SEVERAL)
def test_several_tenants_are_refused_with_what_to_do(fields: dict[str, Any]) -> None:
    settings = Settings(**fields)
    with pytest.raises(SettingsError, match="set api_keys to keys of one tenant"):
        refuse_shared_cache(settings, SHARED)
    refuse_shared_cache(settings, BUILT_IN)


@pytest.mark.parametrize("fields", [{}, {"api_keys": f"shop={KEYS[0]},shop={KEYS[1]}"}])
def test_one_tenant_is_not(fields: dict[str, Any]) -> None:
    refuse_shared_cache(Settings(**fields), SHARED)
