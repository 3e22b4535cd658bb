"""What prompts have in common is computed once, and never shown to another tenant."""

from __future__ import annotations

from typing import Any

import pytest

from plato.engine import FinishReason, Prompt, Segment
from plato.engine.torch.model import LanguageModel
from tests.engine.conftest import MakeCore
from tests.engine.helpers import (
    Stream,
    ask,
    assert_greedy,
    drain,
    run_alone,
    run_together,
    some_tokens,
)
from tests.engine.torch.test_greedy import count_computed

PREFIX = some_tokens(60, 1)
ENDS = [some_tokens(5 + i, 100 + i) for i in range(8)]


def test_a_prefix_that_eight_requests_bring_at_once_is_computed_once(
    make_core: MakeCore,
    tiny: LanguageModel,
    tiny_reference: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    core = make_core(prefill_chunk=16)
    widths = count_computed(tiny, monkeypatch)
    streams = run_together(core, [ask(PREFIX, end, node=i) for i, end in enumerate(ENDS)])

    own = sum(map(len, ENDS))
    assert core.prompt_tokens == 8 * len(PREFIX) + own
    assert core.cached_tokens == 7 * len(PREFIX)
    assert core.output_tokens == 8 * 8
    # The last token of each is never computed.
    assert sum(widths) == len(PREFIX) + own + 8 * 7
    assert sorted(stream.cached for stream in streams) == [0] + [len(PREFIX)] * 7
    for end, stream in zip(ENDS, streams, strict=True):
        assert stream.last.prompt_tokens == len(PREFIX) + len(end)
        assert_greedy(tiny_reference, PREFIX + end, stream.tokens)


@pytest.mark.parametrize("prefill_chunk", [64, 250, 400, 1000])
def test_eight_branches_of_a_prefix_compute_it_once_and_their_own_parts_together(
    make_core: MakeCore,
    tiny: LanguageModel,
    monkeypatch: pytest.MonkeyPatch,
    prefill_chunk: int,
) -> None:
    core = make_core(kv_tokens=4000, prefill_chunk=prefill_chunk)
    widths = count_computed(tiny, monkeypatch)
    prefix = some_tokens(400, 5)
    streams = [Stream() for _ in range(8)]
    for i, stream in enumerate(streams):
        core.add(ask(prefix, some_tokens(24, 50 + i), node=i, max_tokens=1), stream)
    drain(core)
    assert sum(widths) == 400 + 8 * 24
    assert core.prompt_tokens - core.cached_tokens == 400 + 8 * 24
    assert sorted(stream.cached for stream in streams) == [0] + [400] * 7
    # Nothing waits that could be computed: every step but the last fills its chunk, or ends the
    # prefix that the others wait for.
    assert len(widths) <= -(-400 // prefill_chunk) + -(-8 * 24 // prefill_chunk)
    if prefill_chunk > 8 * 24:
        assert widths[-1] >= 7 * 24


def test_a_prefix_that_is_being_computed_is_waited_for(make_core: MakeCore) -> None:
    core = make_core(prefill_chunk=16)
    owner, late = Stream(), Stream()
    core.add(ask(PREFIX, ENDS[0]), owner)
    core.step()
    # It leaves the owner's path in the middle of what is not computed yet.
    core.add(ask(PREFIX[:40], ENDS[1]), late)
    drain(core)
    assert owner.cached == 0
    assert late.cached == 40


def test_others_go_on_when_the_owner_is_cancelled_in_mid_prefill(
    make_core: MakeCore, tiny_reference: Any
) -> None:
    core = make_core(prefill_chunk=16)
    streams = [Stream() for _ in ENDS]
    for i, (end, stream) in enumerate(zip(ENDS, streams, strict=True)):
        core.add(ask(PREFIX, end, node=i), stream)
    core.step()
    core.step()
    core.cancel(lambda sequence: sequence.request.node == 0)
    core.check_integrity()
    drain(core)
    assert streams[0].finish is FinishReason.CANCELLED
    assert not streams[0].tokens
    # What the owner had computed is kept, the rest is computed by one of the others.
    assert sorted(stream.cached for stream in streams[1:]) == [32] + [len(PREFIX)] * 6
    for end, stream in zip(ENDS[1:], streams[1:], strict=True):
        assert_greedy(tiny_reference, PREFIX + end, stream.tokens)


def test_a_continuation_computes_only_the_last_token_and_what_is_new(
    make_core: MakeCore, tiny_reference: Any
) -> None:
    core = make_core()
    first = run_alone(core, ask(PREFIX))
    new = some_tokens(6, 7)
    stream = run_alone(core, ask(PREFIX, first.tokens, new))
    # The last sampled token was never fed to the model.
    assert stream.cached == len(PREFIX) + len(first.tokens) - 1
    assert_greedy(tiny_reference, PREFIX + first.tokens + new, stream.tokens)


def test_the_same_prompt_again_computes_its_last_token_only(make_core: MakeCore) -> None:
    core = make_core()
    cold, warm = run_alone(core, ask(PREFIX)), run_alone(core, ask(PREFIX))
    assert (cold.cached, warm.cached) == (0, len(PREFIX) - 1)
    assert warm.tokens == cold.tokens


def test_emitted_tokens_do_not_count_as_cached_prompt(make_core: MakeCore) -> None:
    core = make_core()
    whole = run_alone(core, ask(PREFIX)).tokens
    again = run_alone(core, ask(PREFIX, emitted=whole[:4]))
    assert again.cached == len(PREFIX)
    assert again.last.prompt_tokens == len(PREFIX)
    elsewhere = run_alone(make_core(), ask(PREFIX, emitted=whole[:4]))
    assert elsewhere.cached == 0


class TestTenants:
    PUBLIC = Segment(some_tokens(20, 2), public=True)
    PRIVATE = some_tokens(30, 3)

    def test_share_what_is_public_only(self, make_core: MakeCore, tiny_reference: Any) -> None:
        core = make_core()
        run_alone(core, ask(self.PUBLIC, self.PRIVATE, tenant="a"))
        other = run_alone(core, ask(self.PUBLIC, self.PRIVATE, tenant="b"))
        same = run_alone(core, ask(self.PUBLIC, self.PRIVATE, tenant="a"))
        assert other.cached == 20
        assert same.cached == 49
        assert same.tokens == other.tokens
        assert_greedy(tiny_reference, self.PUBLIC.tokens + self.PRIVATE, other.tokens)

    def test_do_not_share_at_the_same_time_either(self, make_core: MakeCore) -> None:
        core = make_core(prefill_chunk=16)
        prompts = [ask(self.PUBLIC, self.PRIVATE, tenant=t) for t in ("a", "b", "a", "b", "")]
        streams = run_together(core, prompts)
        assert [stream.cached for stream in streams] == [0, 20, 49, 49, 20]

    def test_do_not_share_the_output_behind_a_public_prompt(self, make_core: MakeCore) -> None:
        core = make_core()
        output = run_alone(core, ask(self.PUBLIC, tenant="a")).tokens
        for tenant, cached in (("a", 27), ("b", 20), ("", 20)):
            assert run_alone(core, ask(self.PUBLIC, output, tenant=tenant)).cached == cached

    def test_a_request_without_a_tenant_does_not_share_private_segments(
        self, make_core: MakeCore
    ) -> None:
        core = make_core()
        run_alone(core, ask(self.PRIVATE, tenant="a"))
        public = Segment(self.PRIVATE, public=True)
        assert run_alone(core, ask(public, tenant="b")).cached == 0
        assert run_alone(core, ask(self.PRIVATE, tenant="")).cached == 0


class TestCachedPrefix:
    def test_tells_what_is_there_by_tenant(self, make_core: MakeCore) -> None:
        core = make_core()
        prompt = ask(PREFIX, tenant="a").prompt
        assert core.cached_prefix(prompt) == 0
        run_alone(core, ask(PREFIX, tenant="a"))
        assert core.cached_prefix(prompt) == 60
        assert core.cached_prefix(ask(PREFIX[:33], (5, 6), tenant="a").prompt) == 33
        assert core.cached_prefix(Prompt(prompt.segments, "b")) == 0

    def test_does_not_count_what_is_not_computed_yet(self, make_core: MakeCore) -> None:
        core = make_core(prefill_chunk=16)
        core.add(ask(PREFIX), Stream())
        core.step()
        assert core.cached_prefix(ask(PREFIX).prompt) == 16
        drain(core)

    def test_does_not_change_what_is_evicted_first(self, make_core: MakeCore) -> None:
        core = make_core(kv_tokens=90)
        old, new = some_tokens(20, 1), some_tokens(20, 2)
        run_alone(core, ask(old))
        run_alone(core, ask(new))
        core.cached_prefix(ask(old).prompt)
        run_alone(core, ask(some_tokens(40, 3)))
        assert core.cached_prefix(ask(old).prompt) < 20
        assert core.cached_prefix(ask(new).prompt) == 20
