"""Branches wait in steps that would be too long for runs with one sequence."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf
from typing import Any

import pytest

from plato.engine import GenerateRequest
from plato.engine.step_times import StepTimes
from plato.engine.torch.regulator import LEAST_PREFILL, BranchRegulator
from tests.engine.conftest import MakeCore
from tests.engine.helpers import Stream, ask, assert_greedy, drain, some_tokens


def times() -> StepTimes:
    """10 ms, 1 ms for each sequence, 0.5 ms for each prompt token."""
    known = StepTimes()
    for width in (1, 16):
        known.note(width, 0.010 + 0.001 * width)
    known.note_prefill(0, 100, 0.050)
    return known


@dataclass(frozen=True, eq=False)
class Asked:
    """All that is looked at of a sequence."""

    request: GenerateRequest

    @property
    def run(self) -> tuple[str, str]:
        return "", self.request.run_id


def sequences(text: str) -> list[Any]:
    """A letter is a run; a small one is a branch of it."""
    return [
        Asked(ask((1,), run_id=letter.upper(), node=n, branch=letter.islower()))
        for n, letter in enumerate(text)
    ]


def names(chosen: list[Any]) -> str:
    return "".join(
        s.request.run_id.lower() if s.request.branch else s.request.run_id for s in chosen
    )


@pytest.mark.parametrize(
    ("slowdown", "target_s", "decoding", "advancing"),
    [
        # Nobody else, or nobody who has only one.
        (1.2, None, "Aaaaaaa", "Aaaaaaa"),
        (1.2, None, "AaaaBbbb", "AaaaBbbb"),
        # Two runs take 12 ms without branches; with 14.4 ms, four sequences can advance.
        (1.2, None, "AaaaaaB", "AaaB"),
        (1.0, None, "AaaaaaB", "AB"),
        # The room is shared: three runs take 13 ms, 15.6 ms are five.
        (1.2, None, "AaaaBbbbC", "AaBbC"),
        # What is no branch advances: a run may decode its plan and a part.
        (1.0, None, "AAAB", "AAAB"),
        # A run of which only branches are left advances.
        (1.0, None, "aaaB", "aB"),
        (None, None, "AaaaaaB", "AaaaaaB"),
        (1.0, 0.0155, "AaaaaaB", "AaaaB"),
        (1.0, 0.001, "AaaaaaB", "AB"),
    ],
)
def test_as_many_advance_as_others_can_bear(
    slowdown: float | None, target_s: float | None, decoding: str, advancing: str
) -> None:
    regulator = BranchRegulator(times(), slowdown, target_s)
    assert names(regulator.share(sequences(decoding)).decoding) == advancing


def test_prompts_of_branches_get_what_is_left() -> None:
    regulator = BranchRegulator(times(), 1.2)
    # 14.4 ms, of which two sequences take 12.
    assert regulator.share(sequences("AB")).prompt_tokens == pytest.approx(4.8)
    assert regulator.share(sequences("AaaB")).prompt_tokens == LEAST_PREFILL
    assert regulator.share(sequences("AaBb")).prompt_tokens == inf
    # Of a run that decodes nothing yet, too.
    assert regulator.share(sequences("B"), sequences("a")).prompt_tokens == pytest.approx(4.4)
    assert regulator.share(sequences("B"), sequences("bb")).prompt_tokens == inf


def test_before_anything_is_measured_nothing_waits() -> None:
    share = BranchRegulator(StepTimes(), 1.0).share(sequences("AaaB"))
    assert (names(share.decoding), share.prompt_tokens) == ("AaaB", inf)
    known = StepTimes()
    known.note(1, 0.010)
    assert names(BranchRegulator(known, 1.0).share(sequences("AaaB")).decoding) == "AaaB"


def test_whoever_waits_decodes_the_same_text_later(
    make_core: MakeCore, tiny_reference: Any
) -> None:
    core = make_core(branch_slowdown=1.0, token_target_s=1e-9)
    single = Stream()
    core.add(replace(ask(some_tokens(5, 90), run_id="single"), max_tokens=20), single)
    core.step()
    core.step()
    branches = [Stream() for _ in range(4)]
    for node, stream in enumerate(branches):
        request = ask(some_tokens(30, node), node=node, run_id="wide", branch=node > 0)
        core.add(replace(request, max_tokens=10), stream)
    while single.finish is None:
        core.step()
        core.check_integrity()
    assert branches[0].finish is not None
    # One branch at a time takes the place of the first sequence; prompts are computed slowly.
    assert [len(stream.tokens) for stream in branches[2:]] == [0, 0]
    drain(core)
    assert_greedy(tiny_reference, some_tokens(5, 90), single.tokens)
    for node, stream in enumerate(branches):
        assert len(stream.tokens) == 10
        assert_greedy(tiny_reference, some_tokens(30, node), stream.tokens)
