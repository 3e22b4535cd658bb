"""Errors as OpenAI's clients read them."""

from __future__ import annotations

import json
import pickle

from plato.api.errors import as_plato_error, error_headers, error_text
from plato.errors import InvalidRequestError, OverloadedError
from plato.runs import RunError, RunFailed


def test_an_error_has_openais_body() -> None:
    error = InvalidRequestError("send less", param="messages", code="too_much")
    assert json.loads(error_text(error)) == {
        "error": {
            "message": "send less",
            "type": "invalid_request_error",
            "param": "messages",
            "code": "too_much",
        }
    }
    assert error_headers(error) == {}


def test_retry_after_is_a_whole_number_of_seconds_and_never_zero() -> None:
    assert error_headers(OverloadedError("later", retry_after_s=1.2)) == {"Retry-After": "2"}
    assert error_headers(OverloadedError("later", retry_after_s=0.0)) == {"Retry-After": "1"}


def test_a_failed_run_keeps_its_status_and_survives_pickling() -> None:
    failed = RunFailed.of(OverloadedError("full", retry_after_s=3.0), "r")
    error = pickle.loads(pickle.dumps(RunError(failed)))
    assert (error.status, error.retry_after_s) == (429, 3.0)
    assert json.loads(error_text(error))["error"]["type"] == "rate_limit_error"


def test_details_of_an_unexpected_error_stay_inside() -> None:
    error = as_plato_error(KeyError("/etc/secret"))
    assert error.status == 500
    assert "secret" not in error.message
