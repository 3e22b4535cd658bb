"""Upstreams that are away, break off or are slow; clients that leave; limits; the end."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import openai
import pytest

from plato.api.app import new_app
from plato.api.drain import Drain
from plato.api.passthrough import Upstreams
from plato.api.passthrough.events import MAX_HELD, WholeEvents
from plato.engine.openai import health, transport
from plato.metrics.table import PASSED_ON
from tests.api.passthrough.fronts import (
    MESSAGES,
    NAME,
    Front,
    NoRuns,
    passing_front,
    settings_for,
)
from tests.api.passthrough.upstream import BrokenOff
from tests.engine.waiting import until

CHAT = "/v1/chat/completions"
STREAM: dict[str, Any] = {"messages": MESSAGES, "stream": True, "n": 1, "logprobs": True}
WHOLE: dict[str, Any] = {"messages": MESSAGES, "n": 2}


def asking(seed: int) -> dict[str, Any]:
    """A question that differs from others, so that other upstreams may be chosen for it."""
    return {"messages": [{"role": "user", "content": f"Why {seed}?"}], "n": 2}


async def test_an_upstream_that_is_away_is_told_at_once(front: Front) -> None:
    await front.upstream.http.stop()
    async with front.http() as http:
        for _ in range(5):
            refused = await http.post(CHAT, json=WHOLE)
            assert refused.status_code == httpx.codes.SERVICE_UNAVAILABLE
            assert refused.headers["retry-after"] == "1"
            assert refused.json()["error"]["code"] == "unavailable"
            assert front.upstream.http.url not in refused.text
        await front.upstream.http.start()
        async with asyncio.timeout(10):
            while not (await http.post(CHAT, json=WHOLE)).is_success:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
    assert front.recorder.total(PASSED_ON, outcome="failed") >= 5
    assert front.recorder.total(PASSED_ON, outcome="answered") == 1


@pytest.mark.parametrize(
    ("pieces", "whole", "held"),
    [
        ([b"data: 1\n\ndata: 2\n\n"], [b"data: 1\n\ndata: 2\n\n"], b""),
        ([b"data: 1\n\ndata: {", b"}\n\nda"], [b"data: 1\n\n", b"data: {}\n\n"], b"da"),
        ([b"data: 1\r\n\r\ndata: {"], [b"data: 1\r\n\r\n"], b"data: {"),
        ([b"data: 1\n", b"\n"], [b"", b"data: 1\n\n"], b""),
        ([b"data: {"], [b""], b"data: {"),
    ],
)
def test_an_event_is_passed_back_when_complete(
    pieces: list[bytes], whole: list[bytes], held: bytes
) -> None:
    events = WholeEvents()
    assert [events.feed(piece) for piece in pieces] == whole
    assert events.held == held
    assert not events.within


def test_a_long_event_is_passed_back_as_it_arrives() -> None:
    events, long = WholeEvents(), b"data: " + b"x" * MAX_HELD
    assert events.feed(long) == long
    assert events.within
    assert events.feed(b"x") == b""
    assert events.feed(b"\n\n") == b"x\n\n"
    assert not events.within


async def test_an_upstream_that_dies_in_mid_stream_is_an_error_and_no_end(front: Front) -> None:
    front.upstream.hold.clear()
    async with front.client() as client:
        stream = await client.chat.completions.create(
            model=NAME, messages=MESSAGES, stream=True, logprobs=True
        )
        await anext(stream)
        await front.upstream.http.stop()
        with pytest.raises(openai.APIError, match="broke off"):
            _ = [chunk async for chunk in stream]
    assert front.recorder.total(PASSED_ON, outcome="failed") == 1


def tracebacks(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Those of this server, not of the upstream, which runs here, too."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.exc_info and record.exc_info[0] is not BrokenOff
    ]


async def test_a_whole_answer_that_breaks_off_is_a_bad_gateway(
    front: Front, caplog: pytest.LogCaptureFixture
) -> None:
    front.upstream.breaks = "application/json"
    async with front.http() as http:
        broken = await http.post(CHAT, json=WHOLE)
    assert broken.status_code == httpx.codes.BAD_GATEWAY
    error = broken.json()["error"]
    assert error["code"] == "bad_gateway"
    assert error["message"] == "the upstream server broke off its answer; send the request again"
    assert not tracebacks(caplog)
    assert front.recorder.total(PASSED_ON, outcome="failed") == 1


async def test_a_body_that_is_passed_back_as_it_arrives_breaks_off_too(
    front: Front, caplog: pytest.LogCaptureFixture
) -> None:
    front.upstream.breaks = "audio/wav"
    async with front.http() as http:
        with pytest.raises(httpx.RemoteProtocolError):
            await http.post(CHAT, json=WHOLE)
    assert not tracebacks(caplog)
    assert front.recorder.total(PASSED_ON, outcome="failed") == 1


async def test_a_redirect_is_for_the_operator(
    front: Front, caplog: pytest.LogCaptureFixture
) -> None:
    front.upstream.status = 307
    async with front.http() as http:
        refused = await http.post(CHAT, json=WHOLE)
    assert refused.status_code == httpx.codes.BAD_GATEWAY
    assert "location" not in refused.headers
    assert "10.0.0.1" not in refused.text
    assert "ask the operator to correct upstreams" in refused.text
    assert "redirects with status 307 to http://10.0.0.1/v1" in caplog.text


@pytest.mark.parametrize("status", [429, 500, 502, 503])
async def test_what_the_only_upstream_refuses_is_passed_back(front: Front, status: int) -> None:
    front.upstream.status = status
    async with front.http() as http:
        refused = await http.post(CHAT, json=WHOLE)
    assert refused.status_code == status
    assert refused.json()["error"]["message"] == f"no {status}"
    assert refused.headers["retry-after"] == "7"


async def test_one_that_is_not_ready_when_it_is_asked_what_it_is(front: Front) -> None:
    front.upstream.models_status = 503
    async with front.http() as http:
        refused = await http.post(CHAT, json=WHOLE)
    assert refused.status_code == httpx.codes.SERVICE_UNAVAILABLE
    assert "not ready: status 503" in refused.json()["error"]["message"]
    assert refused.headers["retry-after"] == "1"


@pytest.mark.parametrize("body", [STREAM, WHOLE], ids=["stream", "whole"])
async def test_a_client_that_leaves_cancels_the_upstreams_request(
    front: Front, body: dict[str, Any]
) -> None:
    front.upstream.hold.clear()
    async with front.http() as http:
        asked = asyncio.create_task(http.post(CHAT, json=body))
        await until(lambda: bool(front.upstream.passed))
        await asyncio.sleep(0.1)
        asked.cancel()
        async with asyncio.timeout(5):
            await front.upstream.left.wait()
    await until(lambda: front.recorder.total(PASSED_ON, outcome="cancelled") == 1)


async def test_an_answer_has_a_deadline() -> None:
    async with passing_front(run_deadline_s=0.3) as front, front.http() as http:
        front.upstream.hold.clear()
        late = await http.post(CHAT, json=WHOLE)
        assert late.status_code == httpx.codes.GATEWAY_TIMEOUT
        streamed = await http.post(CHAT, json=STREAM)
        *_, last = streamed.text.strip().split("\n\n")
        error = json.loads(last.removeprefix("data: "))["error"]
        assert error["code"] == "deadline_exceeded"


async def test_a_tenant_has_as_many_answers_as_runs() -> None:
    async with passing_front(max_tenant_runs=1) as front, front.http() as http:
        front.upstream.hold.clear()
        async with http.stream("POST", CHAT, json=STREAM):
            refused = await http.post(CHAT, json=WHOLE)
            other = {"Authorization": "Bearer another"}
            async with http.stream("POST", CHAT, json=STREAM, headers=other) as begun:
                assert begun.is_success
        assert refused.status_code == httpx.codes.TOO_MANY_REQUESTS
        assert refused.headers["retry-after"] == "1"
        front.upstream.hold.set()
        await until(lambda: front.recorder.total(PASSED_ON, outcome="cancelled") == 2)
        assert (await http.post(CHAT, json=WHOLE)).is_success


@pytest.mark.parametrize(
    "body",
    [WHOLE, STREAM, {**STREAM, "stream_options": {"include_usage": True}}],
    ids=["whole", "stream", "stream with usage"],
)
async def test_a_tenant_has_so_many_tokens_a_minute(body: dict[str, Any]) -> None:
    async with passing_front(tenant_tokens_per_minute=9) as front, front.http() as http:
        assert (await http.post(CHAT, json=body)).is_success
        refused = await http.post(CHAT, json=body)
        assert refused.status_code == httpx.codes.TOO_MANY_REQUESTS
        assert int(refused.headers["retry-after"]) > 1
        other = {"Authorization": "Bearer another"}
        assert (await http.post(CHAT, json=body, headers=other)).is_success


@pytest.mark.parametrize("status", [200, 400])
async def test_prompts_are_counted_even_if_the_upstream_does_not_tell(status: int) -> None:
    long = {**STREAM, "messages": [{"role": "user", "content": "salt " * 400}]}
    async with passing_front(tenant_tokens_per_minute=600) as front, front.http() as http:
        for _ in range(2):
            front.upstream.status = status
            assert (await http.post(CHAT, json=long)).status_code == status
        front.upstream.status = 200
        third = await http.post(CHAT, json=long)
        # What the upstream has refused costs nothing.
        assert third.status_code == (429 if status == httpx.codes.OK else 200)


async def test_bodies_are_bounded_and_must_be_json(front: Front) -> None:
    async with front.http() as http:
        large = await http.post(CHAT, json={**WHOLE, "padding": "x" * (5 << 20)})
        assert large.status_code == httpx.codes.REQUEST_ENTITY_TOO_LARGE
        for path in (CHAT, "/v1/embeddings"):
            broken = await http.post(
                path, content=b"[1]", headers={"Content-Type": "application/json"}
            )
            assert broken.status_code == httpx.codes.BAD_REQUEST
        assert (await http.get("/v1/embeddings")).status_code == httpx.codes.METHOD_NOT_ALLOWED
        assert (await http.post("/v1/files", json={})).status_code == httpx.codes.NOT_FOUND
    assert not front.upstream.passed


async def test_unknown_keys_reach_no_upstream() -> None:
    keys = "somebody=a-key-of-sixteen-characters"
    async with passing_front(api_keys=keys) as front, front.http() as http:
        for path in (CHAT, "/v1/embeddings"):
            refused = await http.post(path, json=WHOLE)
            assert refused.status_code == httpx.codes.UNAUTHORIZED
        assert not front.upstream.passed


async def test_a_server_that_stops_takes_nothing_new_and_cuts_off_what_is_late(
    front: Front,
) -> None:
    settings, drain = settings_for(front.upstreams), Drain()
    passed = Upstreams.of(settings)
    service: Any = NoRuns()
    app = new_app(service, settings, drain=drain, upstreams=passed)
    front.upstream.hold.clear()
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://plato") as http:
        streaming = asyncio.create_task(http.post(CHAT, json=STREAM))
        await until(lambda: bool(front.upstream.passed))
        await asyncio.sleep(0.1)
        stopping = asyncio.create_task(drain.finish(0.2))
        await asyncio.sleep(0.05)
        refused = await http.post(CHAT, json=WHOLE)
        assert refused.status_code == httpx.codes.SERVICE_UNAVAILABLE
        cut_off = await streaming
        assert "the server stopped before the end of the answer" in cut_off.text
        await stopping
    await passed.close()


class TestSeveral:
    async def test_a_conversation_stays_where_it_began(self) -> None:
        async with passing_front(3) as front, front.http() as http:
            for seed in range(12):
                body = asking(seed)
                await http.post(CHAT, json=body)
                body["messages"] += [
                    {"role": "assistant", "content": "So."},
                    {"role": "user", "content": "Why so?"},
                ]
                await http.post(CHAT, json=body)
            passed = [[body["messages"][0] for _, body in up.passed] for up in front.upstreams]
        assert sum(map(len, passed)) == 24
        for first_messages in passed:
            assert all(first_messages.count(message) == 2 for message in first_messages)
        assert sum(map(bool, passed)) > 1

    async def test_none_has_much_more_than_its_share(self) -> None:
        async with passing_front(2) as front, front.http() as http:
            for upstream in front.upstreams:
                upstream.hold.clear()
            asked = [asyncio.create_task(http.post(CHAT, json=STREAM)) for _ in range(8)]
            await until(lambda: sum(len(up.passed) for up in front.upstreams) == 8)
            loads = sorted(len(upstream.passed) for upstream in front.upstreams)
            for upstream in front.upstreams:
                upstream.hold.set()
            await asyncio.gather(*asked)
        assert loads[0] >= 3

    async def test_another_answers_for_one_that_is_away_until_it_is_back(self) -> None:
        async with passing_front(2) as front, front.http() as http:
            away, other = front.upstreams
            await away.http.stop()
            for seed in range(8):
                assert (await http.post(CHAT, json=asking(seed))).is_success
            assert len(other.passed) == 8
            await away.http.start()
            async with asyncio.timeout(10):
                seed = 8
                while not away.passed:
                    seed += 1
                    assert (await http.post(CHAT, json=asking(seed))).is_success
                    await asyncio.sleep(0.2)

    @pytest.mark.parametrize("status", [429, 502, 503, 504])
    async def test_another_answers_for_one_that_cannot_now(self, status: int) -> None:
        async with passing_front(2) as front, front.http() as http:
            refusing, other = front.upstreams
            refusing.status = status
            for seed in range(8):
                assert (await http.post(CHAT, json=STREAM | asking(seed))).is_success
            assert refusing.passed
            assert len(other.passed) == 8
            other.status = status
            asked = len(refusing.passed)
            refused = await http.post(CHAT, json=WHOLE)
            assert (refused.status_code, refused.headers["retry-after"]) == (status, "7")
            # Each is asked once.
            assert (len(refusing.passed), len(other.passed)) == (asked + 1, 9)

    async def test_what_a_server_fails_of_is_sent_to_no_other(self) -> None:
        async with passing_front(2) as front, front.http() as http:
            for upstream in front.upstreams:
                upstream.status = 500
            refused = await http.post(CHAT, json=WHOLE)
            assert refused.status_code == httpx.codes.INTERNAL_SERVER_ERROR
            assert sum(len(upstream.passed) for upstream in front.upstreams) == 1

    async def test_a_refusal_counts_more_than_a_server_that_is_away(self) -> None:
        async with passing_front(2) as front, front.http() as http:
            refusing, away = front.upstreams
            for seed in range(8):
                assert (await http.post(CHAT, json=asking(seed))).is_success
            await away.http.stop()
            refusing.status = 429
            async with asyncio.timeout(10):
                while (  # noqa: ASYNC110
                    refused := await http.post(CHAT, json=asking(0))
                ).status_code != httpx.codes.TOO_MANY_REQUESTS:
                    await asyncio.sleep(0.1)
            assert refused.headers["retry-after"] == "7"

    async def test_errors_name_the_server(self) -> None:
        async with passing_front(2) as front, front.http() as http:
            for upstream in front.upstreams:
                await upstream.http.stop()
            message = (await http.post(CHAT, json=WHOLE)).json()["error"]["message"]
            assert message.startswith("upstream server ")
            assert " of 2 does not answer" in message
            assert all(upstream.http.url not in message for upstream in front.upstreams)

    async def test_none_is_sent_to_one_that_says_that_it_is_not_well(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(health, "INTERVAL_S", 0.05)
        async with passing_front(2) as front, front.http() as http:
            for seed in range(8):
                assert (await http.post(CHAT, json=asking(seed))).is_success
            sick, other = front.upstreams
            assert sick.passed
            assert other.passed
            # As an ingress does whose server is gone.
            sick.health_status = 502
            checks = sick.checks
            await until(lambda: sick.checks > checks + 3)
            before = len(sick.passed)
            for seed in range(8):
                assert (await http.post(CHAT, json=asking(seed))).is_success
            assert len(sick.passed) == before
            sick.health_status = 200
            checks = sick.checks
            await until(lambda: sick.checks > checks + 1)
            for seed in range(8):
                assert (await http.post(CHAT, json=asking(seed))).is_success
            assert len(sick.passed) > before

    async def test_nobody_waits_for_one_that_stands_still(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(health, "INTERVAL_S", 0.05)
        monkeypatch.setattr(transport, "PING_DEADLINE_S", 0.2)
        async with passing_front(2) as front, front.http() as http, asyncio.timeout(20):
            for seed in range(8):
                assert (await http.post(CHAT, json=asking(seed))).is_success
            still, other = front.upstreams
            begun = len(still.passed), len(other.passed)
            assert min(begun) > 0
            still.hold.clear()
            streaming = [
                asyncio.create_task(http.post(CHAT, json=STREAM | asking(seed)))
                for seed in range(8)
            ]
            await until(lambda: len(still.passed) + len(other.passed) == sum(begun) + 8)
            waiting = [asyncio.create_task(http.post(CHAT, json=asking(seed))) for seed in range(8)]
            await until(lambda: len(still.passed) + len(other.passed) == sum(begun) + 16)
            still.late_s = 60.0
            # What has not begun, the other one answers.
            assert all(answer.is_success for answer in await asyncio.gather(*waiting))
            streams = await asyncio.gather(*streaming)
            ends = [stream.text.strip().splitlines()[-1] for stream in streams]
            assert {end for end in ends if "broke off" not in end} == {"data: [DONE]"}
            assert any("broke off" in end for end in ends)

    async def test_one_that_streams_is_well_however_late_its_health_is(
        self, front: Front, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(health, "INTERVAL_S", 0.05)
        monkeypatch.setattr(transport, "PING_DEADLINE_S", 0.2)
        front.upstream.late_s, front.upstream.pause_s = 60.0, 0.1
        async with front.http() as http:
            assert (await http.post(CHAT, json=STREAM)).is_success
            assert front.upstream.checks > 2
            assert (await http.post(CHAT, json=WHOLE)).is_success

    async def test_the_path_of_its_health_is_that_of_its_kind(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(health, "INTERVAL_S", 0.05)
        async with passing_front(upstream_dialect="chat") as front, front.http() as http:
            front.upstream.health_status = 502
            for _ in range(5):
                assert (await http.post(CHAT, json=WHOLE)).is_success
                await asyncio.sleep(0.05)
            assert not front.upstream.checks
            front.upstream.models_status = 502
            async with asyncio.timeout(5):
                while (await http.post(CHAT, json=WHOLE)).is_success:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)


@pytest.mark.parametrize("status", [401, 403])
async def test_a_key_that_is_refused_is_told_without_it(front: Front, status: int) -> None:
    front.upstream.models_status = status
    async with front.http() as http:
        refused = await http.post(CHAT, json=WHOLE)
    assert refused.status_code == httpx.codes.SERVICE_UNAVAILABLE
    message = refused.json()["error"]["message"]
    assert "refuses the key of this server" in message
    assert "sk-secret" not in message
    assert not front.upstream.passed


class TestWithoutSalts:
    """Upstreams that cannot keep apart what they have cached."""

    async def test_keys_that_clients_make_up_are_all_served(self) -> None:
        async with passing_front(upstream_dialect="llama") as front, front.http() as http:
            for key in ("mine", "another"):
                headers = {"Authorization": f"Bearer {key}"}
                assert (await http.post(CHAT, json=WHOLE, headers=headers)).is_success
        assert not any("cache_salt" in body for _, body in front.upstream.passed)

    async def test_several_tenants_are_not(self) -> None:
        keys = "one=a-key-of-sixteen-characters,two=another-key-of-sixteen"
        async with (
            passing_front(upstream_dialect="llama", api_keys=keys) as front,
            front.http() as http,
        ):
            headers = {"Authorization": "Bearer another-key-of-sixteen"}
            refused = await http.post(CHAT, json=WHOLE, headers=headers)
        assert "keys of one tenant" in refused.json()["error"]["message"]
        assert not front.upstream.passed
