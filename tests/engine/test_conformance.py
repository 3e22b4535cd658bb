"""What every engine does, by its capabilities: the built-in one, servers behind HTTP, and vLLM.

vLLM itself takes minutes to start: unless PLATO_TEST_VLLM is set, an emulation is tested instead.
A real server is tested where there is one; see `tests.engine.upstream.real`.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import os
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

import pytest

from plato.engine import (
    Capabilities,
    Engine,
    EngineClosedError,
    FinishReason,
    GenerateRequest,
    Grammar,
    Lease,
    OtherModelError,
    PrefixSharing,
    Prompt,
    RequestRefusedError,
    ResumptionRefusedError,
    SamplingParams,
    Scores,
    Segment,
    StopConditions,
)
from plato.engine.grammar import answer_grammar, json_grammar
from plato.engine.openai import UpstreamConfig, UpstreamEngine
from plato.engine.tokenizer_config import TokenizerConfig
from plato.engine.torch import TorchEngine
from plato.engine.vllm import VllmConfig, VllmEngine
from plato.planning.grammar import outline_grammar, outline_title
from plato.planning.titles import title_of_words
from tests.engine.conftest import TINY, save_tiny, tiny_config
from tests.engine.helpers import Stream, ask, collect, some_tokens
from tests.engine.upstream.chat_wire import ChatServer, PlainChatServer, PlatoServer
from tests.engine.upstream.real import REAL, REAL_SERVER
from tests.engine.upstream.server import WireServer
from tests.engine.upstream.wires import (
    IncrementalSglangServer,
    LlamaServer,
    SglangServer,
    VllmServer,
)
from tests.engine.vllm.emulated import EmulatedBackend
from tests.engine.waiting import until

SERVERS: dict[str, type[WireServer | PlatoServer]] = {
    "vllm": VllmServer,
    "sglang": SglangServer,
    "sglang-incremental": IncrementalSglangServer,
    "llama": LlamaServer,
    "chat": ChatServer,
    "chat-plain": PlainChatServer,
    "plato": PlatoServer,
}
PRIORITY = {"vllm", "sglang", "sglang-incremental"}
IN_PROCESS, EMULATED = "vllm-in-process", "vllm-emulated"
KINDS = ["torch", *SERVERS, EMULATED, *([] if REAL is None else [REAL_SERVER])]
if os.environ.get("PLATO_TEST_VLLM"):
    KINDS.append(pytest.param(IN_PROCESS, marks=pytest.mark.timeout(1200)))
VLLM_FIXTURES = {
    IN_PROCESS: ("vllm_engine", "vllm_reference"),
    EMULATED: ("emulated_engine", "shared_engine"),
}
CONTEXT: int = TINY["max_position_embeddings"]
LONG = 400
EXACT = 1e-3
"""Of log probabilities in float32."""
ENDED = PrefixSharing.ENDED
WORDS = SamplingParams(logit_bias=((500, 90.0),))
"""Decodes whole words: llama.cpp does not tell the ids of the pieces of a character."""
_seeds = itertools.count(10_000)


@dataclass
class Subject:
    """An engine, and others that tell what it does."""

    engine: Engine
    backend: Engine
    """Computes for it; itself if that cannot be seen from here."""
    reference: Engine
    """The built-in engine with the same model."""
    tolerance: float = EXACT
    """By how much its log probabilities may differ from those of the reference."""

    @property
    def can(self) -> Capabilities:
        return self.engine.capabilities

    async def decode(self, request: GenerateRequest) -> Stream:
        async with asyncio.timeout(60):
            return await collect(self.engine, self.asked(request))

    def asked(self, request: GenerateRequest) -> GenerateRequest:
        """The request, as a question where only messages are answered."""
        if self.can.token_ids:
            return request
        prompt = request.prompt
        segments = tuple(replace(segment, role="user") for segment in prompt.segments)
        return replace(request, prompt=replace(prompt, segments=segments))

    def require_token_ids(self) -> None:
        if not self.can.token_ids:
            pytest.skip("text is not exact")

    def computed(self) -> int:
        """Prompt tokens that were computed so far."""
        stats = self.backend.stats()
        return stats.prompt_tokens - stats.cached_tokens

    async def assert_chosen(self, request: GenerateRequest, tokens: tuple[int, ...]) -> None:
        """Every token is the model's choice after those before it, or nearly as likely."""
        for index, token in enumerate(tokens):
            prompt = request.prompt.extended(Segment(tokens[:index])) if index else request.prompt
            one = replace(request, prompt=prompt, max_tokens=1)
            (best,) = (await collect(self.reference, one)).tokens
            chunks = (await collect(self.reference, replace(one, score=(best, token)))).chunks
            likely, chosen = next(chunk.scores for chunk in chunks if chunk.scores)
            assert likely - chosen < self.tolerance, f"token {index} is {token}, not {best}"


@pytest.fixture(scope="module")
def vllm_reference(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> TorchEngine:
    """A tiny model with heads as large as vLLM computes them."""
    folder = str(tmp_path_factory.mktemp("tiny-vllm"))
    save_tiny(folder, tokenizer, hidden_size=128)
    return TorchEngine(tiny_config(folder))


@pytest.fixture(scope="module")
def vllm_engine(vllm_reference: TorchEngine) -> Iterator[VllmEngine]:
    """One for all tests; the last of them closes it."""
    pytest.importorskip("vllm")
    folder = vllm_reference.stats().model
    config = VllmConfig(
        folder,
        TokenizerConfig.load(folder),
        dtype="float32",
        kv_budget_bytes=64 << 20,
        options={"enforce_eager": True},  # Compiling takes minutes.
    )
    engine = VllmEngine(config)
    yield engine
    asyncio.run(engine.close())


@pytest.fixture(scope="module")
def emulated_engine(tiny_folder: str) -> Iterator[VllmEngine]:
    """As `vllm_engine`, with an emulation of vLLM."""
    config = VllmConfig(tiny_folder, TokenizerConfig.load(tiny_folder))
    engine = VllmEngine(config, start=EmulatedBackend)
    yield engine
    asyncio.run(engine.close())


@pytest.fixture(params=KINDS)
async def subject(
    request: pytest.FixtureRequest, tiny_folder: str, shared_engine: TorchEngine
) -> AsyncIterator[Subject]:
    """Every test leaves it idle."""
    if request.param == "torch":
        yield Subject(shared_engine, shared_engine, shared_engine)
    elif request.param in VLLM_FIXTURES:
        names = VLLM_FIXTURES[request.param]
        engine, reference = (request.getfixturevalue(name) for name in names)
        yield Subject(engine, engine, reference)
        await until(lambda: not engine.stats().live)
    elif request.param == REAL_SERVER:
        assert REAL is not None
        folder = request.getfixturevalue("model_folder")
        client = await REAL.engine(folder)
        yield Subject(client, client, REAL.reference(folder), REAL.tolerance)
        assert not list(client._live)
        await client.close()
    else:
        tokenizer = TokenizerConfig.load(tiny_folder)
        server = SERVERS[request.param](shared_engine, tokenizer, CONTEXT)
        await server.http.start()
        config = UpstreamConfig(
            server.http.url,
            tokenizer,
            name="upstream",
            model=server.model_name,
            context_length=CONTEXT,
            priority=request.param in PRIORITY,
        )
        client = await asyncio.to_thread(UpstreamEngine, config)
        yield Subject(client, shared_engine, shared_engine)
        assert not list(client._live)
        await client.close()
        await until(lambda: not shared_engine.stats().live)
        await server.stop()
    assert not shared_engine.stats().live


def fresh(length: int) -> tuple[int, ...]:
    """Tokens that nobody has cached."""
    return some_tokens(length, next(_seeds))


async def test_the_first_chunk_is_an_acknowledgement_and_offsets_add_up(subject: Subject) -> None:
    stream = await subject.decode(ask(fresh(10), sampling=WORDS))
    first = stream.chunks[0]
    assert (first.offset, first.tokens, first.text, first.finish) == (0, (), "", None)
    assert (first.prompt_tokens, first.epoch) == (10, subject.engine.epoch)
    offset = 0
    for chunk in stream.chunks:
        assert chunk.offset == offset
        offset += len(chunk.tokens)
    assert stream.finish is FinishReason.LENGTH
    assert offset == 8 or not subject.can.token_ids


async def test_the_same_request_twice_gives_the_same_and_finds_its_prompt_cached(
    subject: Subject,
) -> None:
    request = ask(fresh(64))
    first, second = [await subject.decode(request) for _ in range(2)]
    if subject.tolerance > EXACT:
        # Quantised weights round a cached prompt otherwise than one that is computed.
        for stream in (first, second):
            await subject.assert_chosen(request, stream.tokens)
    else:
        assert first.text == second.text
        # Tokens of text depend on the pieces in which it came.
        assert first.tokens == second.tokens or not subject.can.token_ids
    granularity = subject.can.prefix_granularity
    if subject.can.token_ids:
        assert first.cached == 0
        assert second.cached >= 64 - 1 - granularity
    assert second.cached > first.cached
    assert subject.engine.cached_prefix(request.prompt) >= 64 - granularity
    assert subject.engine.cached_prefix(ask(fresh(64)).prompt) == 0


async def test_output_is_that_of_the_model(subject: Subject) -> None:
    subject.require_token_ids()
    requests = [ask(fresh(10), max_tokens=20, stop=StopConditions()) for _ in range(3)]
    for request in requests:
        stream = await subject.decode(request)
        await subject.assert_chosen(request, stream.tokens)
        expected = await collect(subject.reference, replace(request, script=stream.tokens))
        assert (stream.tokens, stream.text) == (expected.tokens, expected.text)
        assert stream.finish == expected.finish


async def test_a_retry_continues_after_the_emitted_tokens(subject: Subject) -> None:
    text = "\N{REPLACEMENT CHARACTER}"
    while not text.isascii():  # See `WORDS`.
        request = ask(fresh(20), max_tokens=12)
        whole = await subject.decode(request)
        text = whole.text
    for cut in (1, 5, 11):
        emitted = whole.tokens[:cut]
        retry = replace(request, emitted=emitted, attempt=1)
        if not subject.can.resumption:
            with pytest.raises(ResumptionRefusedError):
                await subject.decode(retry)
            continue
        rest = await subject.decode(retry)
        assert emitted + rest.tokens == whole.tokens or not subject.can.token_ids
        assert rest.chunks[0].offset == len(emitted)
        assert rest.finish is FinishReason.LENGTH


async def test_a_budget_of_one_token(subject: Subject) -> None:
    stream = await subject.decode(ask(fresh(5), max_tokens=1, sampling=WORDS))
    assert len(stream.tokens) == 1 or not subject.can.token_ids
    assert stream.finish is FinishReason.LENGTH


async def test_a_stop_string_over_token_boundaries_cuts_the_text(subject: Subject) -> None:
    request = ask(fresh(10), max_tokens=24)
    text = (await subject.decode(request)).text
    middle = len(text) // 2
    stop = text[middle - 2 : middle + 3]
    assert len(stop) == 5
    stream = await subject.decode(replace(request, stop=StopConditions(False, (stop,))))
    assert stream.text == text[: text.index(stop)]
    assert stream.finish is FinishReason.STOP


async def test_a_sentence_ends_an_output_that_is_nearly_long_enough(subject: Subject) -> None:
    subject.require_token_ids()
    request = ask(fresh(10), max_tokens=24)
    whole = await subject.decode(request)
    ends = replace(request, stop=StopConditions(False, (), 4))
    expected = await collect(subject.reference, replace(ends, script=whole.tokens))
    stream = await subject.decode(ends)
    assert (stream.tokens, stream.text) == (expected.tokens, expected.text)


async def test_sampling_differs_by_seed_and_by_node(subject: Subject) -> None:
    prompt = fresh(10)
    outputs = {
        (await subject.decode(ask(prompt, node=node, sampling=sampling))).tokens
        for node in (1, 2)
        for sampling in (SamplingParams(1.0, seed=1), SamplingParams(1.0, seed=2))
    }
    assert len(outputs) == 4


async def test_seeds_are_keyed_by_position_or_it_is_said(subject: Subject) -> None:
    request = ask(fresh(10), max_tokens=12, sampling=SamplingParams(1.0, seed=7))
    first, second = [await subject.decode(request) for _ in range(2)]
    assert first.text == second.text
    if not subject.can.resumption:
        return
    rest = await subject.decode(replace(request, emitted=first.tokens[:6]))
    assert (first.tokens[:6] + rest.tokens == first.tokens) is subject.can.keyed_seeds


async def test_a_bias_decides(subject: Subject) -> None:
    request = ask(fresh(5), max_tokens=3, sampling=WORDS)
    expected = (await collect(subject.backend, request)).text
    stream = await subject.decode(request)
    assert stream.text.strip() == expected.strip()
    assert stream.tokens == (500,) * 3 or not subject.can.token_ids


async def test_grammars_are_followed_to_their_end(subject: Subject) -> None:
    request = ask(
        fresh(10),
        max_tokens=200,
        grammar=outline_grammar(3, title_of_words(3, 6)),
        sampling=SamplingParams(1.0, seed=3),
        stop=StopConditions(),
    )
    if subject.can.grammars <= {"json_schema"}:
        with pytest.raises(RequestRefusedError, match="grammar"):
            await subject.decode(request)
        return
    stream = await subject.decode(request)
    assert stream.finish is FinishReason.STOP
    lines = stream.text.splitlines()
    assert 2 <= len(lines) <= 3
    for number, line in enumerate(lines, start=1):
        assert outline_title(line)
        assert re.match(rf"{number}\. ", line)
    assert (stream.last.steps < len(stream.tokens)) is subject.can.forced_tokens
    if not subject.can.grammar_resumption:
        with pytest.raises(RequestRefusedError, match="resume"):
            await subject.decode(replace(request, emitted=stream.tokens[:3]))


async def test_characters_of_several_tokens_are_not_lost(subject: Subject, tokenizer: Any) -> None:
    text = "a\N{GRINNING FACE}\N{COW FACE} 饕餮b"
    grammar = Grammar(lark=f'start: "{text}"', gbnf=f'root ::= "{text}"')
    if subject.can.grammars <= {"json_schema"}:
        pytest.skip("it cannot be made to write them")
    request = ask(fresh(10), max_tokens=60, grammar=grammar, stop=StopConditions())
    stream = await subject.decode(request)
    assert stream.text == text
    assert tokenizer.decode(stream.tokens, skip_special_tokens=True) == text


async def test_answers_in_json_follow_their_schema_or_are_refused(subject: Subject) -> None:
    schema = {
        "type": "object",
        "properties": {"colour": {"enum": ["red", "green"]}},
        "required": ["colour"],
        "additionalProperties": False,
    }
    grammar = answer_grammar(json_grammar(schema))
    request = ask(fresh(10), max_tokens=60, grammar=grammar, stop=StopConditions())
    if not subject.can.grammars:
        with pytest.raises(RequestRefusedError, match="grammar"):
            await subject.decode(request)
        return
    assert json.loads((await subject.decode(request)).text)["colour"] in ("red", "green")


async def test_scores_are_of_the_text_that_follows_or_are_refused(subject: Subject) -> None:
    likely: tuple[int, ...] = ()
    while not likely:  # A token can be a piece of a character.
        request = ask(fresh(10), max_tokens=1)
        likely = (await subject.decode(request)).tokens[:1]
    scored = replace(request, score=(*likely, 7))
    if subject.can.scores is Scores.NONE:
        with pytest.raises(RequestRefusedError, match="log probabilities"):
            await subject.decode(scored)
        return
    first, other = next(c.scores for c in (await subject.decode(scored)).chunks if c.scores)
    assert first > other


async def test_scores_rank_tokens_as_the_model_does(subject: Subject) -> None:
    subject.require_token_ids()
    named = tuple(range(300, 310))
    request = ask(fresh(10), max_tokens=1, score=named)
    expected = next(
        c.scores for c in (await collect(subject.reference, request)).chunks if c.scores
    )
    scores = next(c.scores for c in (await subject.decode(request)).chunks if c.scores)
    shift = scores[0] - expected[0]
    assert all(
        math.isclose(mine, theirs + shift, abs_tol=subject.tolerance)
        for mine, theirs in zip(scores, expected, strict=True)
    )
    if subject.can.scores is not Scores.RELATIVE:
        assert math.isclose(shift, 0.0, abs_tol=subject.tolerance)


async def test_eight_siblings_compute_what_they_share_once(subject: Subject) -> None:
    shared = Segment(fresh(192))  # Whole blocks, as long as engines have them.
    before = subject.computed()
    requests = [ask(shared, fresh(5), node=node, max_tokens=4) for node in range(8)]
    await asyncio.gather(*map(subject.decode, requests))
    if subject.can.token_ids and (
        subject.backend is not subject.engine or subject.can.prefix_sharing is not ENDED
    ):
        # The engine behind the servers of tests shares whatever it is sent.
        assert subject.computed() - before <= 192 + 8 * 5
    if subject.can.prefix_sharing is not ENDED:
        assert subject.engine.cached_prefix(requests[0].prompt) >= 192


async def test_tenants_share_no_private_prefix(subject: Subject) -> None:
    if not subject.can.tenants:
        pytest.skip("several tenants are refused at start")
    tokens = fresh(64)
    await subject.decode(ask(tokens, tenant="one"))
    assert (await subject.decode(ask(tokens, tenant="two"))).cached == 0


async def test_cancelling_a_run_ends_its_sequences_alone(subject: Subject) -> None:
    requests = [ask(fresh(5), run_id=run, max_tokens=LONG) for run in ("a", "b")]
    tasks = [asyncio.create_task(subject.decode(request)) for request in requests]
    await until(lambda: subject.engine.stats().load.running == 2)
    subject.engine.cancel("a")
    assert (await tasks[0]).finish is FinishReason.CANCELLED
    assert (await tasks[1]).finish is not FinishReason.CANCELLED


async def test_leaving_ends_the_work(subject: Subject) -> None:
    request = subject.asked(ask(fresh(5), max_tokens=LONG))
    async with aclosing(subject.engine.generate(request)) as chunks:
        async for chunk in chunks:
            if chunk.tokens:
                break
    await until(lambda: not subject.backend.stats().live)


async def test_a_lease_that_is_not_renewed_ends_its_sequences(subject: Subject) -> None:
    lease = Lease("gone", 0.1)
    stream = await subject.decode(ask(fresh(5), max_tokens=LONG, lease=lease))
    assert stream.finish is FinishReason.CANCELLED
    await until(lambda: not subject.backend.stats().live)


async def test_sixty_four_at_the_same_time(subject: Subject) -> None:
    sampling = WORDS if subject.can.token_ids else SamplingParams()
    requests = [ask(fresh(8), node=node, max_tokens=6, sampling=sampling) for node in range(64)]
    streams = await asyncio.gather(*map(subject.decode, requests))
    assert {stream.finish for stream in streams} == {"length"}
    if subject.can.token_ids:
        assert {len(stream.tokens) for stream in streams} == {6}
    load = subject.engine.stats().load
    assert (load.running, load.waiting, load.prefill_tokens) == (0, 0, 0)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"max_tokens": CONTEXT}, "max_tokens"),
        ({"stop": StopConditions(strings=("",))}, "stop"),
        ({"sampling": SamplingParams(top_p=0.0)}, "top_p"),
    ],
)
async def test_what_can_never_be_served_is_refused(
    subject: Subject, fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(RequestRefusedError) as refused:
        await subject.decode(ask(fresh(5), **fields))
    # A server that does not say how long its context is refuses the request itself.
    assert refused.value.param == param or not subject.can.token_ids


async def test_a_prompt_for_another_model_is_for_another_engine(subject: Subject) -> None:
    prompt = Prompt((Segment(fresh(5)),), fingerprint="another")
    with pytest.raises(OtherModelError):
        await subject.decode(replace(ask(fresh(5)), prompt=prompt))


async def test_scripts_are_decoded_or_refused(subject: Subject) -> None:
    script = fresh(4)
    request = ask(fresh(5), max_tokens=4, script=script)
    if subject.can.scripts:
        assert (await subject.decode(request)).tokens == script
    else:
        with pytest.raises(RequestRefusedError, match="script"):
            await subject.decode(request)


async def test_kv_is_transferred_or_nothing_is_given(subject: Subject) -> None:
    request = ask(fresh(32))
    await subject.decode(request)
    piece = await subject.engine.export_kv(request.prompt, 0)
    assert (piece is not None) is subject.can.kv_transfer


async def test_kv_events_name_what_was_computed(subject: Subject) -> None:
    prompt = Prompt((Segment(fresh(64)),))
    await subject.engine.take_kv_events()
    await subject.decode(replace(ask(fresh(1)), prompt=prompt))
    batch = await subject.engine.take_kv_events()
    assert batch is not None
    assert prompt.hashes[0] in {stored.chain for stored in batch.stored}
    snapshot = await subject.engine.kv_snapshot()
    assert {stored.chain for stored in batch.stored} <= {s.chain for s in snapshot.stored}


@pytest.mark.parametrize("kind", KINDS)
async def test_close_ends_whoever_is_busy(
    kind: str, tiny_folder: str, shared_engine: TorchEngine, request: pytest.FixtureRequest
) -> None:
    server = None
    if kind == "torch":
        engine: Engine = await asyncio.to_thread(TorchEngine, tiny_config(tiny_folder))
    elif kind in VLLM_FIXTURES:
        engine = request.getfixturevalue(VLLM_FIXTURES[kind][0])
    elif kind == REAL_SERVER:
        assert REAL is not None
        engine = await REAL.engine(request.getfixturevalue("model_folder"))
    else:
        tokenizer = TokenizerConfig.load(tiny_folder)
        server = SERVERS[kind](shared_engine, tokenizer, CONTEXT)
        await server.http.start()
        config = UpstreamConfig(server.http.url, tokenizer, model=server.model_name)
        engine = await asyncio.to_thread(UpstreamEngine, config)
    subject = Subject(engine, shared_engine, shared_engine)
    tasks = [
        asyncio.create_task(subject.decode(ask(fresh(5), node=node, max_tokens=LONG)))
        for node in range(20)
    ]
    await until(lambda: engine.stats().load.running)
    await engine.close()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(result) for result in results} == {EngineClosedError}
    with pytest.raises(EngineClosedError):
        await subject.decode(ask(fresh(5)))
    if server is not None:
        await until(lambda: not shared_engine.stats().live)
        await server.stop()
