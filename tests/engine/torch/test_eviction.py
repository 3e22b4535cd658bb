"""What goes first when memory runs out: the unneeded, the unpinned, the oldest."""

from __future__ import annotations

import pytest

from plato.engine import FinishReason
from plato.engine.torch import TorchEngine, pins
from plato.engine.torch.core import EngineCore
from plato.engine.torch.pins import PIN_TTL_S
from tests.clock import Clock
from tests.engine.conftest import MakeCore
from tests.engine.helpers import (
    Stream,
    ask,
    collect,
    drain,
    run_alone,
    some_tokens,
)
from tests.engine.torch.test_tree import Forest


@pytest.fixture
def forest(clock: Clock) -> Forest:
    return Forest(clock=clock)


class TestUnpinned:
    def test_go_least_recently_used_first_and_no_more_than_needed(self, forest: Forest) -> None:
        old, young = forest.hold((1, 2), (3, 4)), forest.hold((1, 2), (5, 6))
        other = forest.hold((7, 8, 9))
        assert forest.pool.free_count == 3
        assert forest.tree.ensure_free(4)
        assert [forest.cached(prompt) for prompt in (old, young, other)] == [3, 4, 3]
        assert forest.tree.ensure_free(7)
        assert [forest.cached(prompt) for prompt in (old, young, other)] == [2, 2, 3]
        assert forest.tree.ensure_free(12)
        assert list(forest.tree.nodes()) == []
        assert forest.tree.evicted == 9
        forest.tree.check_integrity()

    def test_are_younger_again_after_a_use(self, forest: Forest) -> None:
        old, young = forest.hold((1, 2, 3, 4)), forest.hold((5, 6, 7, 8))
        forest.hold((1, 2, 3, 4))
        assert forest.tree.ensure_free(8)
        assert (forest.cached(old), forest.cached(young)) == (4, 0)

    def test_are_not_younger_for_being_looked_at(self, forest: Forest) -> None:
        old, young = forest.hold((1, 2, 3, 4)), forest.hold((5, 6, 7, 8))
        forest.cached(old)
        assert forest.tree.ensure_free(8)
        assert (forest.cached(old), forest.cached(young)) == (0, 4)

    def test_stay_while_a_live_sequence_reads_them_or_what_is_behind(self, forest: Forest) -> None:
        tree = forest.tree
        needed = forest.hold((1, 2), (3, 4))
        forest.hold((1, 2), (5, 6))
        node, found = tree.lock(needed, needed.tokens)
        assert found == 4
        assert tree.evictable == 2
        assert not tree.ensure_free(9)
        assert forest.pool.free_count == 6, "nothing is evicted in vain"
        assert tree.ensure_free(8)
        assert forest.cached(needed) == 4
        tree.unlock(node, None)
        assert tree.evictable == 4
        tree.check_integrity()


class TestPinned:
    def test_go_after_all_others_however_old(self, forest: Forest) -> None:
        pinned, other = forest.hold((1, 2, 3, 4)), forest.hold((5, 6, 7, 8))
        forest.tree.pin(pinned, "run", 7)
        assert forest.tree.ensure_free(8)
        assert (forest.cached(pinned), forest.cached(other)) == (4, 0)
        assert forest.tree.ensure_free(12), "a pin is no lock"
        forest.tree.check_integrity()

    def test_go_farthest_from_being_needed_first(self, forest: Forest) -> None:
        soon, late, later = (forest.hold((n, n, n)) for n in (1, 2, 3))
        forest.tree.pin(later, "run", 5)
        forest.tree.pin(soon, "run", 0)
        forest.tree.pin(late, "run", 2)
        gone = []
        for count in (6, 9, 12):
            assert forest.tree.ensure_free(count)
            gone.append([forest.cached(prompt) for prompt in (soon, late, later)])
        assert gone == [[3, 3, 0], [3, 0, 0], [0, 0, 0]]

    def test_at_one_distance_go_least_recently_used_first(self, forest: Forest) -> None:
        prompts = [forest.hold((n, n, n, n)) for n in (1, 2, 3)]
        for prompt in reversed(prompts):
            forest.tree.pin(prompt, "run", 1)
        assert forest.tree.ensure_free(8)
        assert [forest.cached(prompt) for prompt in prompts] == [0, 0, 4]

    def test_protect_the_whole_prefix_and_nothing_behind_it(self, forest: Forest) -> None:
        whole = forest.hold((1, 2), (3, 4))
        other = forest.hold((5, 6))
        forest.tree.pin(forest.hold((1, 2)), "run", 0)
        assert forest.tree.ensure_free(8)
        assert (forest.cached(whole), forest.cached(other)) == (2, 2)
        assert forest.tree.ensure_free(10)
        assert (forest.cached(whole), forest.cached(other)) == (2, 0)

    def test_pass_to_what_stands_before_when_they_go(self, forest: Forest) -> None:
        long = forest.hold((1, 2), (3, 4))
        forest.hold((1, 2), (5, 6))
        forest.tree.pin(long, "run", 3)
        other = forest.hold((7, 8))
        forest.tree.pin(other, "run", 4)
        assert forest.tree.ensure_free(10)
        assert (forest.cached(long), forest.cached(other)) == (2, 0)
        forest.hold((7, 8))
        assert forest.tree.ensure_free(10)
        assert (forest.cached(long), forest.cached(other)) == (2, 0)
        forest.tree.check_integrity()

    def test_count_by_the_run_that_needs_them_first(self, forest: Forest) -> None:
        shared, own = forest.hold((1, 2, 3, 4)), forest.hold((5, 6, 7, 8))
        forest.tree.pin(shared, "a", 5)
        forest.tree.pin(shared, "b", 1)
        forest.tree.pin(own, "a", 3)
        assert forest.tree.ensure_free(8)
        assert (forest.cached(shared), forest.cached(own)) == (4, 0)

    def test_are_like_others_after_their_runs_release(self, forest: Forest) -> None:
        a, b = forest.hold((1, 2, 3, 4)), forest.hold((5, 6, 7, 8))
        forest.tree.pin(a, "a", 0)
        forest.tree.pin(b, "b", 9)
        forest.tree.release("a")
        forest.tree.release("nobody")
        assert forest.tree.ensure_free(8)
        assert (forest.cached(a), forest.cached(b)) == (0, 4)
        forest.tree.check_integrity()

    def test_are_like_others_after_their_time(self, forest: Forest, clock: Clock) -> None:
        pinned, other = forest.hold((1, 2, 3, 4)), forest.hold((5, 6, 7, 8))
        forest.tree.pin(pinned, "run", 0)
        clock.now += PIN_TTL_S - 1
        forest.tree.expire_pins()
        forest.hold((5, 6, 7, 8))
        assert forest.tree.ensure_free(5)
        assert forest.cached(pinned) == 4
        clock.now += 1
        forest.tree.expire_pins()
        assert forest.tree.ensure_free(8)
        assert (forest.cached(pinned), forest.cached(other)) == (1, 3)
        forest.tree.check_integrity()

    def test_are_bounded_the_oldest_goes(
        self, forest: Forest, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(pins, "MAX_PINS", 2)
        prompts = [forest.hold((n, n, n)) for n in (1, 2, 3)]
        for prompt in prompts:
            forest.tree.pin(prompt, "run", 0)
            forest.tree.check_integrity()
        assert forest.tree.ensure_free(6)
        assert [forest.cached(prompt) for prompt in prompts] == [0, 3, 3]

    def test_of_what_is_not_there_do_nothing(self, forest: Forest) -> None:
        prompt = forest.hold((1, 2))
        assert forest.tree.ensure_free(12)
        forest.tree.pin(prompt, "run", 0)
        forest.tree.check_integrity()


class TestKeep:
    PROMPT, OTHER = some_tokens(20, 1), some_tokens(20, 2)

    def test_pins_prompt_and_output_of_a_sequence_that_ended(self, make_core: MakeCore) -> None:
        core = make_core(kv_tokens=90)
        kept = run_alone(core, ask(self.PROMPT, keep=0))
        run_alone(core, ask(self.OTHER))
        run_alone(core, ask(some_tokens(50, 3)))
        assert core.cached_prefix(ask(self.PROMPT, kept.tokens).prompt) == 27
        assert core.cached_prefix(ask(self.OTHER).prompt) < 20
        assert core.tree.evicted > 0

    def test_does_not_outlast_the_release_of_the_run(self, make_core: MakeCore) -> None:
        core = make_core(kv_tokens=90)
        run_alone(core, ask(self.PROMPT, keep=0))
        core.release("run")
        run_alone(core, ask(self.OTHER))
        run_alone(core, ask(some_tokens(50, 3)))
        assert core.cached_prefix(ask(self.OTHER).prompt) == 20
        assert core.cached_prefix(ask(self.PROMPT).prompt) < 20

    def test_does_not_pin_what_was_cancelled(self, make_core: MakeCore) -> None:
        core = make_core(kv_tokens=90)
        stream = Stream()
        core.add(ask(self.PROMPT, keep=0), stream)
        core.step()
        core.cancel(lambda sequence: True)
        assert stream.finish is FinishReason.CANCELLED
        run_alone(core, ask(self.OTHER))
        run_alone(core, ask(some_tokens(40, 3)))
        assert core.cached_prefix(ask(self.OTHER).prompt) == 20
        assert core.cached_prefix(ask(self.PROMPT).prompt) < 20

    def test_pinning_everything_blocks_no_sequence(self, make_core: MakeCore) -> None:
        core = make_core(kv_tokens=60)
        for seed in range(6):
            stream = run_alone(core, ask(some_tokens(40, seed), run_id=f"run-{seed}", keep=0))
            assert stream.finish is FinishReason.LENGTH
        core.check_integrity()

    def test_pins_of_live_sequences_do_not_deadlock(self, make_core: MakeCore) -> None:
        core = make_core(kv_tokens=60)
        streams = [Stream() for _ in range(6)]
        for seed, stream in enumerate(streams):
            core.add(ask(some_tokens(30, seed), run_id=f"run-{seed}", keep=seed), stream)
            core.pin(f"run-{seed}", ask(some_tokens(30, seed)).prompt, 0)
        drain(core)
        assert all(stream.finish is FinishReason.LENGTH for stream in streams)


async def test_pins_go_through_the_engines_protocol(engine: TorchEngine) -> None:
    prompt = some_tokens(30, 77)
    await collect(engine, ask(prompt, run_id="kept", keep=1))
    engine.pin("pinned", ask(prompt).prompt, 0)

    def runs(core: EngineCore) -> set[str]:
        return {run for node in core.tree.nodes() for run in node.pins or ()}

    assert await engine.inspect(runs) == {"kept", "pinned"}
    engine.release("kept")
    engine.release("pinned")
    assert not await engine.inspect(runs)
