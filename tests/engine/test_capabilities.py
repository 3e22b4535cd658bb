"""What is lost on an engine is said in words, and nothing is said where nothing is lost."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from plato.engine.capabilities import BUILT_IN, Capabilities, PrefixSharing, Scores, losses

LEAST: dict[str, object] = {
    "prefix_granularity": 0,
    "prefix_sharing": PrefixSharing.ENDED,
    "grammars": frozenset(),
    "scores": Scores.NONE,
}
"""The least that an engine can say of itself; flags are false."""


def test_nothing_is_lost_on_the_built_in_engine() -> None:
    assert losses(BUILT_IN) == ()


@pytest.mark.parametrize("name", [field.name for field in fields(Capabilities)])
def test_whatever_an_engine_lacks_is_said_once(name: str) -> None:
    lacking = replace(BUILT_IN, **{name: LEAST.get(name, False)})
    assert len(losses(lacking)) == 1


def test_between_all_and_nothing_something_else_is_said() -> None:
    blocks = replace(BUILT_IN, prefix_granularity=16)
    assert losses(blocks) == ("prefixes are reused in blocks of 16 tokens",)
    for name, between in (
        ("prefix_sharing", PrefixSharing.COMPUTED),
        ("scores", Scores.RELATIVE),
    ):
        least = replace(BUILT_IN, **{name: LEAST[name]})
        assert len(losses(replace(BUILT_IN, **{name: between}))) == 1
        assert losses(replace(BUILT_IN, **{name: between})) != losses(least)


def test_another_notation_of_grammars_is_no_loss() -> None:
    assert losses(replace(BUILT_IN, grammars=frozenset({"gbnf"}))) == ()
