"""Errors cross processes whole: between actors, an exception is pickled."""

from __future__ import annotations

import pickle

import pytest

from plato import errors
from plato.engine import errors as engine_errors
from plato.errors import PlatoError

ALL = [
    value
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, PlatoError)
]
ENGINE = [
    value
    for value in vars(engine_errors).values()
    if isinstance(value, type) and issubclass(value, engine_errors.EngineError)
]


@pytest.mark.parametrize("kind", ALL)
def test_survive_pickling(kind: type[PlatoError]) -> None:
    error = kind("do something else", param="plato.plan", code="special", retry_after_s=2.5)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert str(copy) == copy.message == "do something else"
    assert (copy.param, copy.code, copy.retry_after_s) == ("plato.plan", "special", 2.5)
    assert (copy.status, copy.type) == (kind.status, kind.type)


@pytest.mark.parametrize("kind", ALL)
def test_keep_the_code_of_their_class_without_another(kind: type[PlatoError]) -> None:
    copy = pickle.loads(pickle.dumps(kind("message")))
    assert copy.code == kind.code
    assert copy.param is None
    assert copy.retry_after_s is None


@pytest.mark.parametrize("kind", ALL)
def test_have_a_status_that_fits_their_type(kind: type[PlatoError]) -> None:
    expected = {
        "invalid_request_error": range(400, 429),
        "rate_limit_error": range(429, 430),
        "cancelled": range(499, 500),
    }
    assert kind.status in expected.get(kind.type, range(500, 600))


@pytest.mark.parametrize("kind", ENGINE)
def test_of_the_engine_survive_pickling(kind: type[engine_errors.EngineError]) -> None:
    copy = pickle.loads(pickle.dumps(kind("shorten the prompt")))
    assert type(copy) is kind
    assert str(copy) == "shorten the prompt"
