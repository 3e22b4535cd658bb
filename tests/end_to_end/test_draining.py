"""A decoder leaves on scale-down; what it has begun ends or moves."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.end_to_end.asking import QUESTIONS, ask_all, report
from tests.end_to_end.server import Server
from tests.end_to_end.waiting import wait_until

pytestmark = pytest.mark.soak


@contextmanager
def serving(folder: Path, model: str, drain_s: float) -> Iterator[Server]:
    with Server(
        folder,
        ("tests.end_to_end.scaling",),
        model=model,
        served_model_name="small",
        dtype="float32",
        decoders=2,
        decoder_cpus=0.5,
        decoder_threads=1,
        kv_budget_mb=256,
        drain_s=drain_s,
    ) as server:
        yield server


def ask_undisturbed(server: Server) -> list[str]:
    answers = ask_all(server)
    assert [one.error for one in answers] == [""] * len(QUESTIONS)
    return [one.text for one in answers]


def test_a_decoder_that_has_to_leave_before_it_is_done_costs_no_word(
    model_folder: str, tmp_path: Path
) -> None:
    with serving(tmp_path, model_folder, drain_s=0.5) as server:
        undisturbed = ask_undisturbed(server)
        assert len(server.replicas("Decoder")) == 2
        answers = ask_all(server, lambda: server.tell(signal.SIGUSR1))
        report("a decoder scaled away", answers)
        wait_until(lambda: len(server.replicas("Decoder")) == 1, 20, "it is gone")
    assert [one.error for one in answers] == [""] * len(QUESTIONS)
    assert [one.text for one in answers] == undisturbed
    assert any(one.restarts for one in answers)


def test_replacing_every_process_by_a_new_release_costs_no_word(
    model_folder: str, tmp_path: Path
) -> None:
    with serving(tmp_path, model_folder, drain_s=120.0) as server:
        undisturbed = ask_undisturbed(server)
        before = {process.pid for process in server.replicas("")}
        answers = ask_all(server, lambda: server.tell(signal.SIGUSR2))
        report("everything replaced", answers)
        assert [one.error for one in answers] == [""] * len(QUESTIONS)
        assert [one.text for one in answers] == undisturbed

        def replaced() -> bool:
            now = {process.pid for process in server.replicas("")}
            return len(now) == len(before) and not now & before

        wait_until(replaced, 60, "every replica is a new one")
