"""Which engine a decoder gets."""

from __future__ import annotations

import pytest

from plato.assembly import new_engine
from plato.engine import Engine
from plato.errors import SettingsError
from plato.settings import Settings

CALLS: list[tuple[Settings, str, str]] = []
ENGINE: Engine = object()  # type: ignore[assignment]


def make_engine(settings: Settings, folder: str, name: str) -> Engine:
    CALLS.append((settings, folder, name))
    return ENGINE


async def test_the_default_engine_is_the_built_in_one(tiny_model_folder: str) -> None:
    settings = Settings(device="cpu", dtype="float32", kv_budget_mb=4, decoder_threads=1)
    engine = new_engine(settings, tiny_model_folder, "decoder-0")
    assert engine.stats().dtype == "float32"
    await engine.close()


def test_another_engine_comes_from_the_factory_that_the_settings_name() -> None:
    settings = Settings(engine=f"{__name__}:make_engine", engine_options={"pace": 2})
    assert new_engine(settings, "folder", "decoder-0") is ENGINE
    assert [(settings, "folder", "decoder-0")] == CALLS


@pytest.mark.parametrize(
    "engine",
    [
        "vllm",
        "random",
        "",
        ":factory",
        ".relative:factory",
        "no_such_module:factory",
        "plato.testing.paced",
        "plato.testing.paced:no_such_factory",
    ],
)
def test_an_engine_that_cannot_be_imported_is_refused(engine: str) -> None:
    with pytest.raises(SettingsError, match=r"write torch, or package\.module:factory"):
        new_engine(Settings(engine=engine), "folder", "decoder-0")
