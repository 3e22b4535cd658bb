"""Log lines are JSON objects that machines can read."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from plato.logs import JsonFormatter, configure_logs


@pytest.fixture
def restored() -> Iterator[None]:
    """Puts back what `configure_logs` changes."""
    loggers = [logging.getLogger(name) for name in ("plato", "deployments")]
    before = [(logger.handlers, logger.level, logger.propagate) for logger in loggers]
    yield
    for logger, (handlers, level, propagate) in zip(loggers, before, strict=True):
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


def line(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """The only line on standard error."""
    (text,) = capsys.readouterr().err.splitlines()
    parsed: dict[str, Any] = json.loads(text)
    return parsed


@pytest.mark.usefixtures("restored")
def test_a_line_holds_message_extras_and_the_fields_of_the_process(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logs("INFO", deployment="scheduler", replica="r1")
    logging.getLogger("plato.scheduling").info("run %s", "ended", extra={"run": "r", "tokens": 3})
    found = line(capsys)
    time = found.pop("time")
    assert time.endswith("+00:00")
    assert found == {
        "level": "INFO",
        "logger": "plato.scheduling",
        "message": "run ended",
        "deployment": "scheduler",
        "replica": "r1",
        "run": "r",
        "tokens": 3,
    }


@pytest.mark.usefixtures("restored")
def test_an_exception_stays_on_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("INFO")
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logging.getLogger("plato").exception("failed")
    assert "ValueError: two\nlines" in line(capsys)["exception"]


@pytest.mark.usefixtures("restored")
def test_levels_are_honoured_and_configuring_twice_changes_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logs("DEBUG")
    configure_logs("WARNING")
    logging.getLogger("plato").info("unseen")
    logging.getLogger("deployments").warning("seen")
    assert line(capsys)["message"] == "seen"


def test_what_json_does_not_know_is_written_as_text() -> None:
    record = logging.makeLogRecord({"msg": "odd", "value": {1, 2}, "kind": int})
    found = json.loads(JsonFormatter().format(record))
    assert found["value"] in ("{1, 2}", "{2, 1}")
    assert found["kind"] == "<class 'int'>"


def test_fields_that_a_library_adds_for_itself_are_left_out() -> None:
    record = logging.makeLogRecord({"msg": "m", "_ray_timestamp_ns": 5, "run": "r"})
    found = json.loads(JsonFormatter().format(record))
    assert found.keys() == {"time", "level", "logger", "message", "run"}


def test_an_extra_cannot_hide_what_a_line_is() -> None:
    try:
        raise KeyError("x")
    except KeyError:
        record = logging.makeLogRecord(
            {"msg": "real", "levelname": "ERROR", "exc_info": sys.exc_info(), "level": "fake"}
        )
    found = json.loads(JsonFormatter().format(record))
    assert (found["message"], found["level"]) == ("real", "ERROR")
