"""What a server decodes becomes the output of a request, by our rules."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from plato.engine import (
    EngineClosedError,
    FinishReason,
    Grammar,
    Lease,
    OtherModelError,
    Prompt,
    RequestRefusedError,
    SamplingParams,
    Segment,
    StopConditions,
)
from plato.engine.openai import UpstreamEngine
from plato.engine.prefill import prefill_public
from tests.engine.openai.conftest import MakeEngine
from tests.engine.upstream.scripted import (
    DONE,
    END,
    PROMPT,
    ScriptedServer,
    ask,
    event,
    request,
    says,
    stream,
    usage,
)
from tests.engine.waiting import until


def endless(_: object) -> object:
    return stream(*(piece for _ in range(1000) for piece in (event([97]), 0.01)))


async def test_a_stream_begins_with_an_acknowledgement_and_ends_with_the_servers_reason(
    engine: UpstreamEngine,
) -> None:
    answer = await ask(engine)
    first = answer.chunks[0]
    assert (first.offset, first.tokens, first.text, first.finish) == (0, (), "", None)
    assert (answer.text, answer.tokens) == ("hello", tuple(b"hello"))
    assert (answer.finish, answer.last.cached_tokens, answer.last.steps) == ("stop", 3, 5)
    assert {chunk.epoch for chunk in answer.chunks} == {engine.epoch}
    stats = engine.stats()
    assert (stats.output_tokens, stats.prompt_tokens, stats.cached_tokens) == (5, len(PROMPT), 3)


async def test_groups_of_the_server_do_not_change_the_output(
    engine: UpstreamEngine, server: ScriptedServer
) -> None:
    asked = request(stop=StopConditions(strings=("o w",)))
    server.reply = lambda _: stream(event(list(b"hello world")), 1.0)
    answer = await ask(engine, asked)
    assert (answer.text, answer.tokens) == ("hell", tuple(b"hello w"))
    assert answer.finish is FinishReason.STOP


@pytest.mark.parametrize(
    ("tokens", "budget", "reason", "expected"),
    [
        (b"abcdef", 3, "length", (b"abc", "length")),
        (b"abc", 3, "stop", (b"abc", "stop")),
        (b"ab", 20, "length", (b"ab", "length")),
        (b"", 20, "stop", (b"", "stop")),
        ("é".encode()[:1], 20, "length", ("é".encode()[:1], "length")),
    ],
)
async def test_ends_by_the_budget_or_by_the_server(
    engine: UpstreamEngine,
    server: ScriptedServer,
    tokens: bytes,
    budget: int,
    reason: str,
    expected: tuple[bytes, str],
) -> None:
    server.reply = lambda _: stream(event(list(tokens), reason), DONE)
    answer = await ask(engine, request(max_tokens=budget))
    assert (bytes(answer.tokens), answer.finish) == expected
    assert "\N{REPLACEMENT CHARACTER}" not in answer.text


async def test_the_end_of_a_turn_is_an_end_even_before_the_server_says_so(
    engine: UpstreamEngine, server: ScriptedServer
) -> None:
    server.reply = lambda _: stream(event([104, END]), event([], "stop"), usage(3), DONE)
    answer = await ask(engine)
    assert answer.last.cached_tokens == 3
    assert (answer.text, answer.tokens, answer.finish) == ("h", (104, END), "stop")


async def test_a_retry_continues_after_what_was_emitted(
    engine: UpstreamEngine, server: ScriptedServer
) -> None:
    answer = await ask(engine, request(emitted=tuple(b"say: "), max_tokens=8))
    assert (answer.text, answer.finish) == ("hel", FinishReason.LENGTH)
    assert [chunk.offset for chunk in answer.chunks[:2]] == [5, 5]
    (body,) = server.bodies
    assert (bytes(body["prompt"]), body["max_tokens"]) == (bytes(PROMPT) + b"say: ", 3)


async def test_tokens_are_grouped_where_that_is_asked_for(engine: UpstreamEngine) -> None:
    answer = await ask(engine, request(group_s=0.2))
    assert answer.text == "hello"
    assert len(answer.chunks) <= 4


async def test_leaving_cancels_at_the_server(
    engine: UpstreamEngine, server: ScriptedServer
) -> None:
    left = asyncio.Event()

    async def body() -> object:
        try:
            while True:
                yield event([97])
                await asyncio.sleep(0.01)
        finally:
            left.set()

    from starlette.responses import StreamingResponse

    server.reply = lambda _: StreamingResponse(body())
    async with aclosing(engine.generate(request())) as chunks:
        async for chunk in chunks:
            if chunk.tokens:
                break
    async with asyncio.timeout(5):
        await left.wait()


async def test_cancel_ends_a_run_or_a_node(engine: UpstreamEngine, server: ScriptedServer) -> None:
    server.reply = endless  # type: ignore[assignment]
    tasks = [
        asyncio.create_task(ask(engine, request(run_id=run, node=node, max_tokens=80)))
        for run, node in (("a", 1), ("a", 2), ("b", 1))
    ]
    await until(lambda: engine.stats().load.running == 3)
    engine.cancel("a", 2)
    assert (await tasks[1]).finish is FinishReason.CANCELLED
    assert not tasks[0].done()
    engine.cancel("a")
    engine.cancel("b")
    assert [(await task).finish for task in tasks] == [FinishReason.CANCELLED] * 3


async def test_a_lease_that_runs_out_cancels(
    engine: UpstreamEngine, server: ScriptedServer
) -> None:
    server.reply = endless  # type: ignore[assignment]
    answer = await ask(engine, request(lease=Lease("gone", 0.05), max_tokens=80))
    assert answer.finish is FinishReason.CANCELLED


async def test_close_ends_consumers_with_an_error_and_takes_no_more(
    engine: UpstreamEngine, server: ScriptedServer
) -> None:
    server.reply = endless  # type: ignore[assignment]
    task = asyncio.create_task(ask(engine, request(max_tokens=80)))
    await server.arrived.wait()
    await engine.close()
    with pytest.raises(EngineClosedError, match="shutting down"):
        await task
    with pytest.raises(EngineClosedError):
        await ask(engine)
    with pytest.raises(EngineClosedError):
        engine.stats()


async def test_a_tenant_is_a_salt_that_the_key_keeps_secret(
    make_engine: MakeEngine, server: ScriptedServer
) -> None:
    engines = [await make_engine(key=key) for key in ("one", "one", "two")]
    for engine in engines:
        for tenant in ("", "acme", "other"):
            await ask(engine, request(tenant))
    salts = [body.get("cache_salt") for body in server.bodies]
    assert salts[:3] == salts[3:6]
    assert salts[0] is salts[6] is None
    assert len({*salts[1:3], *salts[7:9]}) == 4
    assert server.keys == {"Bearer one", "Bearer two"}


def test_a_key_is_not_shown(server: ScriptedServer) -> None:
    from plato.engine.openai import UpstreamConfig
    from tests.engine.upstream.scripted import byte_tokenizer

    assert "secret" not in repr(UpstreamConfig("http://a", byte_tokenizer(), key="secret"))


async def test_penalties_with_exempt_tokens_are_left_out(
    engine: UpstreamEngine, server: ScriptedServer
) -> None:
    for exempt in (frozenset(), frozenset({7})):
        sampling = SamplingParams(repetition_penalty=1.3, penalty_exempt=exempt)
        await ask(engine, request(sampling=sampling))
    assert [body["repetition_penalty"] for body in server.bodies] == [1.3, 1.0]


async def test_grammars_are_sent_in_the_notation_of_the_server(
    make_engine: MakeEngine, server: ScriptedServer
) -> None:
    grammar = Grammar(lark="start: /a/", gbnf="root ::= [a]")
    for notation in (None, "lark"):
        await ask(await make_engine(grammar=notation), request(grammar=grammar))
    server.reads = frozenset({"lark"})
    await ask(await make_engine(), request(grammar=grammar))
    sent = [body["structured_outputs"]["grammar"] for body in server.bodies]
    assert sent == [grammar.gbnf, grammar.lark, grammar.lark]


async def test_json_is_a_schema_wherever_the_server_reads_one(
    make_engine: MakeEngine, server: ScriptedServer
) -> None:
    grammar = Grammar(lark="start: /a/", json_schema="{}")
    await ask(await make_engine(), request(grammar=grammar))
    assert server.bodies[0]["structured_outputs"] == {"json": "{}"}
    server.reads = frozenset({"gbnf"})
    with pytest.raises(RequestRefusedError, match="cannot decode under this grammar"):
        await ask(await make_engine(), request(grammar=grammar))


async def test_what_a_server_cannot_do_is_refused(make_engine: MakeEngine) -> None:
    grammar = Grammar(lark="start: /a/", gbnf="root ::= [a]")
    plain, without = await make_engine(), await make_engine(grammar="none")
    with pytest.raises(RequestRefusedError, match="cannot decode under this grammar"):
        await ask(without, request(grammar=grammar))
    with pytest.raises(RequestRefusedError, match="resume within a grammar"):
        await ask(plain, request(grammar=grammar, emitted=(97,)))
    with pytest.raises(RequestRefusedError, match="no scripts"):
        await ask(plain, request(script=(97,)))
    with pytest.raises(RequestRefusedError, match="context of 100 tokens"):
        await ask(plain, request(max_tokens=90))
    with pytest.raises(OtherModelError):
        await ask(plain, request(prompt=Prompt((Segment((1,)),), fingerprint="other")))


async def test_the_servers_cache_is_guessed_from_what_it_was_sent(engine: UpstreamEngine) -> None:
    prompt = Prompt((Segment(PROMPT * 2), Segment((1, 2))), "acme")
    assert engine.cached_prefix(prompt) == 0
    await ask(engine, request(prompt=prompt))
    assert engine.cached_prefix(prompt) == 32
    batch = await engine.take_kv_events()
    assert batch is not None
    assert batch.stored
    assert (await engine.kv_snapshot()).stored == batch.stored
    assert await engine.take_kv_events() is None


async def test_scores_are_of_the_first_token(
    engine: UpstreamEngine, server: ScriptedServer
) -> None:
    top = {"token_id:104": -0.5, "token_id:1": -9999.0, "token_id:9": -2.0}
    logprobs = {"top_logprobs": [top, {}]}
    server.reply = lambda _: stream(event([104, 105], "stop", logprobs=logprobs), usage(0), DONE)
    answer = await ask(engine, request(score=(1, 104)))
    assert answer.chunks[-1].scores == (float("-inf"), -0.5)
    assert server.bodies[0]["logprob_token_ids"] == [1, 104]


async def test_sequences_wait_for_a_place(make_engine: MakeEngine, server: ScriptedServer) -> None:
    engine = await make_engine(max_sequences=2)
    server.reply = lambda _: stream(0.05, event([97], "stop"), DONE)
    answers = await asyncio.gather(*(ask(engine, request(node=n)) for n in range(6)))
    assert [answer.text for answer in answers] == ["a"] * 6
    assert max(chunk.load.running for answer in answers for chunk in answer.chunks) == 2


async def test_public_prompts_are_computed_in_advance_where_requests_share_them(
    engine: UpstreamEngine, server: ScriptedServer
) -> None:
    prompts = [Prompt((Segment(PROMPT, public=True),))]
    await prefill_public(engine, prompts, tenants=True)
    assert not server.bodies
    await prefill_public(engine, prompts, tenants=False)
    assert len(server.bodies) == 1


async def test_says(engine: UpstreamEngine, server: ScriptedServer) -> None:
    server.reply = lambda _: says("Grüße, 東京")
    assert (await ask(engine)).text == "Grüße, 東京"
