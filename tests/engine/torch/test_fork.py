"""A live sequence can be forked at any computed token without effect on its own output."""

from __future__ import annotations

from typing import Any

import pytest

from plato.engine import Segment
from tests.engine.conftest import MakeCore
from tests.engine.helpers import Stream, ask, assert_greedy, drain, run_alone, some_tokens

PROMPT = some_tokens(30, 1)
NEW = some_tokens(5, 2)


def live(core: Any, tokens: int = 10, **fields: Any) -> Stream:
    """A sequence that has decoded so many tokens, and is far from its end."""
    stream = Stream()
    core.add(ask(PROMPT, max_tokens=40, **fields), stream)
    while len(stream.tokens) < tokens:
        core.step()
    return stream


@pytest.mark.parametrize("cut", [1, 4, 9])
def test_a_continuation_computes_only_what_is_new(
    make_core: MakeCore, tiny_reference: Any, cut: int
) -> None:
    core = make_core()
    parent = live(core)
    before = core.output_tokens
    child = Stream()
    output = parent.tokens[:cut]
    core.add(ask(PROMPT, output, NEW), child)
    core.step()
    core.check_integrity()
    assert core.output_tokens == before + 2, "its first step already brings a token"
    drain(core)
    assert child.cached == len(PROMPT) + cut
    assert_greedy(tiny_reference, PROMPT + output + NEW, child.tokens)
    assert len(parent.tokens) == 40
    assert_greedy(tiny_reference, PROMPT, parent.tokens)


def test_the_last_token_has_no_kv_yet(make_core: MakeCore) -> None:
    core = make_core()
    parent = live(core, 10)
    child = Stream()
    core.add(ask(PROMPT, parent.tokens, NEW), child)
    drain(core)
    assert child.cached == len(PROMPT) + 9


def test_forks_of_forks_all_share(make_core: MakeCore, tiny_reference: Any) -> None:
    core = make_core()
    streams = [live(core)]
    prompts = [PROMPT]
    for generation in range(4):
        prompts.append(prompts[-1] + streams[-1].tokens[:5] + some_tokens(3, generation))
        streams.append(Stream())
        core.add(ask(prompts[-1], max_tokens=20), streams[-1])
        while len(streams[-1].tokens) < 7:
            core.step()
            core.check_integrity()
    drain(core)
    for older, prompt, stream in zip(prompts, prompts[1:], streams[1:], strict=False):
        assert stream.cached == len(older) + 5
        assert_greedy(tiny_reference, prompt, stream.tokens)
    assert_greedy(tiny_reference, PROMPT, streams[0].tokens)


def test_many_forks_do_not_make_a_chain_of_nodes(make_core: MakeCore) -> None:
    core = make_core(max_sequences=2)
    parent = live(core, 2)
    while len(parent.tokens) < 30:
        child = Stream()
        core.add(ask(PROMPT, parent.tokens, max_tokens=1), child)
        core.step()
        assert child.cached == len(PROMPT) + len(parent.tokens) - 2
    core.check_integrity()
    # What the children added is what the parent adds next: one path, no forks.
    assert len(list(core.tree.nodes())) <= 3
    drain(core)


def test_two_that_decode_the_same_share_their_memory(make_core: MakeCore) -> None:
    core = make_core(kv_tokens=200)
    first, second = live(core, 4), live(core, 10)
    third = Stream()
    core.add(ask(PROMPT, second.tokens[:8], NEW), third)
    core.step()
    core.check_integrity()
    used = core.pool.capacity - core.pool.free_count
    drain(core)
    assert first.tokens == second.tokens
    assert third.cached == len(PROMPT) + 8
    # Prompt and common output are held once, besides what is reserved to grow.
    assert used < 2 * (len(PROMPT) + 10) + len(NEW) + 3 * 16
    assert core.pool.capacity - core.pool.free_count == len(PROMPT) + 39 + len(NEW) + 7


def test_a_live_output_is_not_shared_between_tenants(make_core: MakeCore) -> None:
    core = make_core()
    public = Segment(PROMPT, public=True)
    parent = Stream()
    core.add(ask(public, tenant="a", max_tokens=40), parent)
    while len(parent.tokens) < 10:
        core.step()
    output = parent.tokens[:8]
    streams = {tenant: Stream() for tenant in ("a", "b")}
    for tenant, stream in streams.items():
        core.add(ask(public, output, NEW, tenant=tenant), stream)
        # Otherwise the tenant that has got nothing yet is first, and computes the last token.
        core.step()
    drain(core)
    assert streams["a"].cached == len(PROMPT) + 8
    # The last prompt token is the parent's own until a sequence of its tenant forks it.
    assert streams["b"].cached in (len(PROMPT) - 1, len(PROMPT))


def test_what_is_being_decoded_counts_as_cached(make_core: MakeCore) -> None:
    core = make_core()
    parent = live(core, 10, tenant="a")
    nodes = len(list(core.tree.nodes()))
    for tenant, expected in (("a", len(PROMPT) + 9), ("b", 0)):
        prompt = ask(PROMPT, parent.tokens, NEW, tenant=tenant).prompt
        assert core.cached_prefix(prompt) == expected
    assert core.cached_prefix(ask(PROMPT, parent.tokens[:4], NEW, tenant="a").prompt) == 34
    assert len(list(core.tree.nodes())) == nodes, "asking changes nothing"
    drain(core)


def test_a_parent_that_is_cancelled_leaves_its_forks_alone(
    make_core: MakeCore, tiny_reference: Any
) -> None:
    core = make_core()
    parent = live(core, node=7)
    child = Stream()
    core.add(ask(PROMPT, parent.tokens[:6], NEW), child)
    core.step()
    core.cancel(lambda sequence: sequence.request.node == 7)
    core.check_integrity()
    drain(core)
    assert_greedy(tiny_reference, PROMPT + parent.tokens[:6] + NEW, child.tokens)
    assert run_alone(core, ask(PROMPT, parent.tokens)).cached >= len(PROMPT) + 9
