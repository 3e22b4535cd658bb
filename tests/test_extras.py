"""A package that is missing is told with the extra that has it."""

from __future__ import annotations

import pytest

from plato.errors import SettingsError
from plato.extras import needs


def test_a_missing_package_is_told_with_its_extra() -> None:
    told = r"needs raytracing.*pip install 'plato-serve\[serve]'"
    with pytest.raises(SettingsError, match=told), needs("serve"):
        import raytracing.module  # noqa: F401


def test_a_missing_module_of_our_own_is_a_mistake_of_ours() -> None:
    with pytest.raises(ModuleNotFoundError), needs("torch"):
        import plato.missing  # noqa: F401
