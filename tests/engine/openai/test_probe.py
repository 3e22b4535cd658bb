"""What a server does with grammars is found out by asking it."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest

from plato.engine import EngineError, GenerateRequest, RequestRefusedError, Scores, losses
from plato.engine.openai.dialects import Delta
from plato.engine.openai.probe import find_notations
from plato.engine.openai.response import MAX_ANSWER_BYTES
from tests.engine.openai.conftest import MakeEngine
from tests.engine.upstream.scripted import ScriptedServer, ask, byte_tokenizer, request, says


@pytest.mark.parametrize(
    ("reads", "configured", "known"),
    [
        ({"json_schema", "gbnf", "lark"}, None, {"json_schema", "gbnf"}),
        ({"json_schema", "lark"}, None, {"json_schema", "lark"}),
        ({"lark"}, None, {"lark"}),
        (set(), None, set()),
        ({"json_schema", "gbnf"}, "lark", {"json_schema", "lark"}),
        ({"json_schema", "gbnf"}, "none", set()),
    ],
)
async def test_a_server_is_sent_what_it_reads_unless_it_is_configured(
    make_engine: MakeEngine,
    server: ScriptedServer,
    reads: set[str],
    configured: str | None,
    known: set[str],
) -> None:
    server.reads = frozenset(reads)
    engine = await make_engine(grammar=configured)
    assert engine.capabilities.grammars == known
    assert not server.bodies


async def test_a_server_that_ignores_grammars_reads_none(
    make_engine: MakeEngine, server: ScriptedServer
) -> None:
    server.probe_reply = lambda: says("Yes, it is blue.")
    assert (await make_engine()).capabilities.grammars == frozenset()


async def test_a_notation_that_no_such_server_reads_is_refused() -> None:
    def decode(request: GenerateRequest) -> AsyncGenerator[Delta]:
        raise AssertionError("nobody is asked")

    with pytest.raises(EngineError, match="no grammars in lark"):
        await find_notations(frozenset({"gbnf"}), "lark", byte_tokenizer().backend, decode)


async def test_a_server_that_ignores_tokens_to_score_gives_no_scores(
    make_engine: MakeEngine, server: ScriptedServer
) -> None:
    assert (await make_engine()).capabilities.scores is Scores.LOG_PROBABILITIES
    server.scores = False
    engine = await make_engine()
    assert engine.capabilities.scores is Scores.NONE
    assert any("never splits" in lost for lost in losses(engine.capabilities))
    with pytest.raises(RequestRefusedError, match="no log probabilities"):
        await ask(engine, request(score=(1,)))
    assert not server.bodies


async def test_a_server_that_ignores_salts_serves_one_tenant(
    make_engine: MakeEngine, server: ScriptedServer
) -> None:
    separate = (await make_engine()).capabilities
    assert (separate.tenants, separate.public_sharing) == (True, False)
    server.salts = False
    engine = await make_engine()
    assert (engine.capabilities.tenants, engine.capabilities.public_sharing) == (False, True)
    await ask(engine, request("one"))
    assert ["cache_salt" in body for body in server.bodies] == [False]


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        (
            '# TYPE vllm:cache_config_info gauge\nvllm:cache_config_info{block_size="32",'
            'cache_dtype="auto",hash_block_size="None"} 1.0\n',
            32,
        ),
        ('vllm:cache_config_info{cache_dtype="auto",block_size="64"} 1.0', 64),
        ('vllm:cache_config_info{hash_block_size="64"} 1.0\nother{block_size="64"} 1.0', 16),
        ('vllm:cache_config_info{block_size="0"} 1.0', 16),
        ("", 16),
        (None, 16),
    ],
)
async def test_prefixes_are_cached_in_blocks_of_the_server(
    make_engine: MakeEngine, server: ScriptedServer, metrics: str | None, expected: int
) -> None:
    server.metrics = metrics
    assert (await make_engine()).capabilities.prefix_granularity == expected


@pytest.mark.parametrize(
    ("status", "metrics"), [(500, "down"), (503, "busy"), (200, "#" * (MAX_ANSWER_BYTES + 1))]
)
async def test_a_server_whose_metrics_cannot_be_read_is_used_all_the_same(
    make_engine: MakeEngine, server: ScriptedServer, status: int, metrics: str
) -> None:
    server.metrics, server.metrics_status = metrics, status
    engine = await make_engine()
    assert engine.capabilities.prefix_granularity == 16
    assert await ask(engine, request("one"))
