"""How each kind of server is asked, and what its answers mean."""

from __future__ import annotations

import math
from typing import Any

import pytest

from plato.engine import (
    EngineError,
    EngineUnreadyError,
    FinishReason,
    RequestRefusedError,
    SamplingParams,
    StopConditions,
    UpstreamError,
)
from plato.engine.openai.dialects import DIALECTS, Delta, Generation
from tests.engine.upstream.scripted import PROMPT, request

EVERY = pytest.mark.parametrize("name", ["vllm", "sglang", "llama"])


def generation(**fields: Any) -> Generation:
    about = {key: fields.pop(key) for key in ("salt", "grammar", "priority") if key in fields}
    return Generation(request(**fields), "model", **about)


def flat(body: dict[str, Any]) -> dict[str, Any]:
    return {**body, **body.get("sampling_params", {})}


@EVERY
def test_a_request_says_everything_that_servers_have_other_defaults_for(name: str) -> None:
    body = flat(DIALECTS[name].body(generation()))
    assert body["temperature"] == 0
    assert body["top_p"] == 1
    assert body["min_p"] == 0
    assert body["top_k"] in (0, -1)
    assert 1.0 in (body.get("repetition_penalty"), body.get("repeat_penalty"))
    assert body["presence_penalty"] == body["frequency_penalty"] == 0
    assert body["ignore_eos"] is False
    assert body["stream"] is True
    assert list(PROMPT) in (body.get("prompt"), body.get("input_ids"))


@EVERY
def test_what_was_emitted_is_part_of_what_is_continued_and_of_the_budget(name: str) -> None:
    stop = StopConditions(end_tokens=False)
    body = flat(DIALECTS[name].body(generation(emitted=(1, 2), max_tokens=5, stop=stop)))
    assert [*PROMPT, 1, 2] in (body.get("prompt"), body.get("input_ids"))
    assert 3 in (body.get("max_tokens"), body.get("max_new_tokens"), body.get("n_predict"))
    assert body["ignore_eos"] is True


@EVERY
def test_servers_know_no_stop_strings(name: str) -> None:
    """They would cut where our rules do not."""
    body = flat(DIALECTS[name].body(generation(stop=StopConditions(strings=("x",)))))
    assert "stop" not in body


@EVERY
def test_a_grammar_is_sent_where_the_server_looks_for_it(name: str) -> None:
    body = flat(DIALECTS[name].body(generation(grammar=("gbnf", "root ::= [a]"))))
    sent = {
        "vllm": body.get("structured_outputs"),
        "sglang": body.get("ebnf"),
        "llama": body.get("grammar"),
    }
    text: Any = {"grammar": "root ::= [a]"} if name == "vllm" else "root ::= [a]"
    assert sent == {key: text if key == name else None for key in sent}


@EVERY
def test_a_schema_is_sent_as_one(name: str) -> None:
    body = flat(DIALECTS[name].body(generation(grammar=("json_schema", '{"type": "object"}'))))
    sent = {
        "vllm": body.get("structured_outputs", {}).get("json"),
        "sglang": body.get("json_schema"),
        "llama": body.get("json_schema"),
    }
    assert sent[name] in ('{"type": "object"}', {"type": "object"})
    assert not {"ebnf", "grammar"} & body.keys()


@EVERY
def test_salt_and_priority_are_sent_where_they_mean_something(name: str) -> None:
    dialect = DIALECTS[name]
    body = dialect.body(generation(salt="acme", priority=5))
    salts = {"vllm": {"cache_salt"}, "sglang": {"cache_salt", "extra_key"}, "llama": set()}
    assert {key for key, value in body.items() if value == "acme"} == salts[name]
    assert body.get("priority") == {"vllm": 5, "sglang": -5, "llama": None}[name]
    plain = dialect.body(generation())
    assert not {"cache_salt", "extra_key", "priority"} & plain.keys()


def test_seeds_differ_by_seed_node_and_retry() -> None:
    variants = [{}, {"node": 2}, {"emitted": (1,)}, {"sampling": SamplingParams(seed=1)}]
    seeds = [generation(**fields).seed for fields in variants]
    assert len(set(seeds)) == 4
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert seeds[0] == generation().seed


class TestSglang:
    @pytest.mark.parametrize("cumulative", [True, False])
    def test_token_ids_come_whole_or_in_pieces(self, cumulative: bool) -> None:
        read = DIALECTS["sglang"].reader(generation())
        found: list[int] = []
        for start, stop in ((0, 2), (2, 2), (2, 5)):
            ids = list(range(0 if cumulative else start, stop))
            about = {"completion_tokens": stop, "cached_tokens": 3, "finish_reason": None}
            delta = read({"output_ids": ids, "meta_info": about})
            assert delta.cached_tokens == 3
            found += delta.tokens
        assert found == [0, 1, 2, 3, 4]

    @pytest.mark.parametrize(
        ("status", "error", "message"),
        [
            (400, RequestRefusedError, "too long"),
            (503, EngineUnreadyError, "status 503"),
            (None, UpstreamError, "status 500"),
        ],
    )
    def test_an_abort_is_an_error_by_its_status(
        self, status: int | None, error: type[EngineError], message: str
    ) -> None:
        reason = {"type": "abort", "message": "too long", "status_code": status}
        event = {"output_ids": [], "meta_info": {"completion_tokens": 0, "finish_reason": reason}}
        with pytest.raises(error, match=message):
            DIALECTS["sglang"].reader(generation())(event)

    def test_scores_are_those_of_the_first_position(self) -> None:
        read = DIALECTS["sglang"].reader(generation(score=(7, 8)))
        positions = [[[-1.5, 8, None], [-1e38, 7, None]], []]
        about = {"completion_tokens": 2, "output_token_ids_logprobs": positions}
        delta = read({"output_ids": [5, 6], "meta_info": about})
        assert delta.scores == (-math.inf, -1.5)
        with pytest.raises(UpstreamError, match="no log probabilities"):
            DIALECTS["sglang"].reader(generation(score=(9,)))(
                {"output_ids": [5], "meta_info": {"completion_tokens": 1}}
            )


class TestLlama:
    def test_the_last_event_says_why_it_ended(self) -> None:
        read = DIALECTS["llama"].reader(generation())
        event = {"tokens": [5], "content": "a", "tokens_predicted": 1, "stop": False}
        assert read(event) == Delta((5,))
        last = {"tokens": [], "stop": True, "tokens_predicted": 2, "timings": {"cache_n": 4}}
        assert read({**last, "stop_type": "eos"}) == Delta(
            finish=FinishReason.STOP, cached_tokens=4
        )

    def test_a_server_without_token_ids_is_too_old(self) -> None:
        read = DIALECTS["llama"].reader(generation())
        with pytest.raises(UpstreamError, match=r"update llama\.cpp"):
            read({"tokens": [], "content": "a", "stop": False, "tokens_predicted": 1})

    def test_after_tokens_without_an_event_the_text_counts(self) -> None:
        read = DIALECTS["llama"].reader(generation())
        events = [([1], "a", 1), ([4], "\N{GRINNING FACE}", 4), ([5], "b", 5), ([2], "", 6)]
        deltas = [
            read({"tokens": ids, "content": text, "tokens_predicted": count, "stop": False})
            for ids, text, count in events
        ]
        emoji = Delta(text="\N{GRINNING FACE}")
        assert deltas == [Delta((1,)), emoji, Delta(text="b"), Delta((2,))]

    def test_a_server_that_counts_ahead_loses_no_text(self) -> None:
        """With speculative decoding it counts all tokens that it has accepted at once."""
        read = DIALECTS["llama"].reader(generation())
        events = [([1], "a"), ([4], "\N{GRINNING FACE}"), ([5], "b")]
        deltas = [
            read({"tokens": ids, "content": text, "tokens_predicted": 6, "stop": False})
            for ids, text in events
        ]
        assert "".join(delta.text for delta in deltas) == "a\N{GRINNING FACE}b"

    def test_scores_take_a_call_of_their_own(self) -> None:
        llama, asked = DIALECTS["llama"], generation(score=(7, 8, 9))
        assert llama.score_body(generation()) is None
        body = llama.score_body(asked)
        assert body is not None
        assert (body["n_predict"], body["n_probs"], body["samplers"]) == (1, 3, [])
        top = [{"id": 8, "prob": 0.75}, {"id": 7, "prob": 0.25}]
        scores = llama.scores(asked, {"completion_probabilities": [{"top_probs": top}]})
        assert scores == (math.log(0.25), math.log(0.75), -math.inf)
        for nothing in ({}, {"completion_probabilities": [{"top_probs": []}]}):
            with pytest.raises(UpstreamError, match="no probabilities"):
                llama.scores(asked, nothing)
