"""With several decoders, the parts of an answer run where their prefix lies."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.end_to_end.server import Server

pytestmark = pytest.mark.slow

QUESTION = "Here is a long story to start with. " + "The sea was calm that day. " * 40 + "And then?"
CHAIN = [
    {"title": "Morning", "max_tokens": 24},
    {"title": "Noon", "max_tokens": 24, "dependencies": [1]},
    {"title": "Evening", "max_tokens": 24, "dependencies": [2]},
]
WIDE = [{"title": f"View {letter}", "max_tokens": 24} for letter in "ABCD"]


def graph(server: Server, plan: list[dict[str, Any]], question: str) -> list[dict[str, Any]]:
    answer = httpx.post(
        f"{server.url}/v1/chat/completions",
        json={
            "model": "small",
            "messages": [{"role": "user", "content": question}],
            "plato": {"mode": "plato", "plan": plan, "exact_lengths": True},
        },
        timeout=120,
    ).json()
    nodes: list[dict[str, Any]] = answer["plato"]["graph"]["nodes"]
    print()
    for node in nodes:
        print(
            f"part {node['number']} on {node['replica']}: {node['prompt_tokens']} prompt tokens, "
            f"{node['cached_tokens']} cached, {node['predicted_cached_tokens']} predicted"
        )
    return nodes


def test_a_chain_stays_where_its_conversation_lies_and_finds_what_was_predicted(
    server: Server,
) -> None:
    nodes = graph(server, CHAIN, QUESTION)
    assert len({node["replica"] for node in nodes}) == 1
    for node in nodes[1:]:
        # All but the last token of the part before, whose KV is not computed, and the new turn.
        assert node["cached_tokens"] > node["prompt_tokens"] - 60
        assert abs(node["cached_tokens"] - node["predicted_cached_tokens"]) <= 2


def test_siblings_of_a_long_question_share_it(server: Server) -> None:
    nodes = graph(server, WIDE, QUESTION + " Tell it from four sides.")
    by_replica: dict[str, list[dict[str, Any]]] = {}
    for node in nodes:
        by_replica.setdefault(node["replica"], []).append(node)
    computed = sum(node["prompt_tokens"] - node["cached_tokens"] for node in nodes)
    # The question is computed once for each replica that was used.
    assert computed < (len(by_replica) + 0.8) * nodes[0]["prompt_tokens"]
    assert any(len(together) > 1 for together in by_replica.values())


def test_a_new_decoder_has_computed_what_all_questions_share(server: Server) -> None:
    (first, *_) = graph(server, CHAIN, "Something that nobody has asked before?")
    assert first["cached_tokens"] > 10
