"""What no engine can serve is refused, with the field to change."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from plato.engine import (
    OtherModelError,
    Prompt,
    RequestRefusedError,
    ResumptionRefusedError,
    SamplingParams,
    Segment,
    StopConditions,
)
from plato.engine.capabilities import BUILT_IN
from plato.engine.checks import check_capabilities, check_request, check_sampling
from tests.engine.helpers import ask

LIMITS: dict[str, Any] = {"fingerprints": ["model"], "context_length": 20, "vocabulary": 100}


def test_a_request_within_the_limits_is_accepted() -> None:
    check_request(ask(range(12), max_tokens=8, score=(99,), script=(0, 99)), **LIMITS)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"max_tokens": 9}, "max_tokens"),
        ({"emitted": (1,) * 8}, "max_tokens"),
        ({"stop": StopConditions(strings=("a", ""))}, "stop"),
        ({"score": (100,)}, "score"),
        ({"script": (-1,)}, "script"),
        ({"sampling": SamplingParams(top_p=0.0)}, "top_p"),
    ],
)
def test_a_request_beyond_them_is_refused(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestRefusedError) as refused:
        check_request(ask(range(12), **fields), **LIMITS)
    assert refused.value.param == param


def test_an_empty_prompt_is_refused() -> None:
    with pytest.raises(RequestRefusedError, match="empty"):
        check_request(ask(), **LIMITS)


def test_a_prompt_for_another_model_is_for_another_engine() -> None:
    request = replace(ask(range(3)), prompt=Prompt((Segment((1,)),), fingerprint="other"))
    with pytest.raises(OtherModelError, match="other"):
        check_request(request, **LIMITS)


class TestMessages:
    CHAT = replace(BUILT_IN, token_ids=False)

    def test_a_plain_text_is_no_message(self) -> None:
        with pytest.raises(RequestRefusedError, match="use /v1/chat/completions"):
            check_capabilities(ask(range(5)), self.CHAT)
        check_capabilities(ask(Segment((1, 2), role="user")), self.CHAT)

    def test_without_resumption_no_answer_is_continued(self) -> None:
        question, begun = Segment((1,), role="user"), Segment((2,), role="assistant")
        check_capabilities(ask(question, begun), self.CHAT)
        can = replace(self.CHAT, resumption=False)
        with pytest.raises(RequestRefusedError, match="an answer that is begun"):
            check_capabilities(ask(question, begun), can)
        with pytest.raises(ResumptionRefusedError):
            check_capabilities(ask(question, emitted=(2,)), can)


class TestSampling:
    @pytest.mark.parametrize(
        "params",
        [
            SamplingParams(),
            SamplingParams(
                temperature=2.0,
                top_p=1e-6,
                seed=7,
                repetition_penalty=1.3,
                penalty_exempt=frozenset({10**6}),
                penalised=(0, 99, 99),
                logit_bias=((0, -1.0), (99, 1e4)),
                top_k=10**6,
            ),
            SamplingParams(min_p=1.0, presence_penalty=-2, logit_bias=((0, 1.0), (1, 1.0))),
        ],
    )
    def test_accepts_what_means_something(self, params: SamplingParams) -> None:
        check_sampling(params, 100)

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"temperature": -1.0}, "temperature is -1; it must be 0 to"),
            ({"temperature": math.inf}, "temperature is inf"),
            ({"temperature": math.nan}, "temperature is nan"),
            ({"top_p": 0.0}, "top_p is 0, .* use temperature 0"),
            ({"top_p": 1.5}, "top_p is 1.5; it must be 0 to 1"),
            ({"top_k": -1}, "top_k is -1"),
            ({"min_p": 2.0}, "min_p is 2; it must be 0 to 1"),
            ({"repetition_penalty": 0.0}, "repetition_penalty is 0"),
            ({"presence_penalty": math.nan}, "presence_penalty is nan"),
            ({"frequency_penalty": -math.inf}, "frequency_penalty is -inf"),
            ({"logit_bias": ((100, 1.0),)}, "logit_bias has token 100, .* 0 to 99; remove it"),
            ({"logit_bias": ((-1, 1.0),)}, "logit_bias has token -1"),
            ({"logit_bias": ((5, 1.0), (5, 2.0))}, "token 5 twice; keep one"),
            ({"logit_bias": ((5, math.inf),)}, "adds inf to token 5"),
            ({"penalised": (5, 100)}, "penalised has token 100, .* 0 to 99; remove it"),
        ],
    )
    def test_says_what_to_change(self, fields: dict[str, float], message: str) -> None:
        with pytest.raises(RequestRefusedError, match=message):
            check_sampling(SamplingParams(**fields), 100)  # type: ignore[arg-type]
