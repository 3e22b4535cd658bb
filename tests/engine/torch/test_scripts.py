"""A request's script replaces the sampled tokens."""

from __future__ import annotations

import pytest

from plato.engine import RequestRefusedError
from plato.engine.torch.core import EngineCore
from tests.engine.conftest import MakeCore
from tests.engine.helpers import ask, run_alone, some_tokens


@pytest.fixture
def core(make_core: MakeCore) -> EngineCore:
    return make_core()


def test_a_script_is_decoded_step_by_step_and_then_the_model_goes_on(core: EngineCore) -> None:
    script = some_tokens(6, seed=5)
    free = run_alone(core, ask(some_tokens(20), max_tokens=10))
    assert tuple(free.tokens[:6]) != script
    forced = run_alone(core, ask(some_tokens(20), max_tokens=10, script=script))
    assert tuple(forced.tokens[:6]) == script
    assert forced.last.steps == 10
    # What follows is what the model says behind the script.
    behind = run_alone(core, ask((*some_tokens(20), *script), max_tokens=4))
    assert forced.tokens[6:] == behind.tokens


def test_a_script_goes_on_behind_emitted_tokens(core: EngineCore) -> None:
    script = some_tokens(6, seed=5)
    request = ask(some_tokens(20), max_tokens=6, script=script, emitted=script[:4])
    assert tuple(run_alone(core, request).tokens) == script[4:]


def test_a_script_outside_the_vocabulary_is_refused(core: EngineCore) -> None:
    with pytest.raises(RequestRefusedError, match="vocabulary"):
        core.check(ask(some_tokens(5), max_tokens=5, script=(10**9,)))
