"""A package that is missing is told with the extra that has it."""

from __future__ import annotations

import pytest

from plato.extras import not_installed


@pytest.mark.parametrize(("module", "extra"), [("ray.serve", "serve"), ("tokenizers", "torch")])
def test_a_missing_package_is_told_with_its_extra(module: str, extra: str) -> None:
    error = not_installed(ModuleNotFoundError(f"No module named {module!r}", name=module))
    package = module.partition(".")[0]
    assert error.message.startswith(f"this needs {package}, which is not installed")
    assert error.message.endswith(f"pip install 'plato-serve[{extra}]'")


def test_a_missing_module_of_our_own_is_a_mistake_of_ours() -> None:
    with pytest.raises(ModuleNotFoundError):
        not_installed(ModuleNotFoundError("No module named 'plato.x'", name="plato.x"))
