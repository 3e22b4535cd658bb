"""Decoders follow the tokens that there are to compute and decode."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tests.end_to_end.asking import QUESTIONS, ask_all
from tests.end_to_end.server import Server
from tests.end_to_end.waiting import wait_until

pytestmark = pytest.mark.soak


def test_decoders_come_with_the_load_and_go_with_it(model_folder: str, tmp_path: Path) -> None:
    with Server(
        tmp_path,
        model=model_folder,
        served_model_name="small",
        dtype="float32",
        decoders=1,
        max_decoders=2,
        # Eight answers at a time are several times this.
        decoder_tokens=256,
        upscale_delay_s=0.5,
        downscale_delay_s=2.0,
        decoder_cpus=0.5,
        decoder_threads=1,
        kv_budget_mb=256,
    ) as server:
        assert len(server.replicas("Decoder")) == 1
        enough = threading.Event()
        errors: list[str] = []

        def keep_asking() -> None:
            while not enough.is_set():
                errors.extend(one.error for one in ask_all(server) if one.error)

        load = threading.Thread(target=keep_asking)
        load.start()
        try:
            wait_until(lambda: len(server.replicas("Decoder")) == 2, 60, "a second decoder")
        finally:
            enough.set()
            load.join(120)
        assert not load.is_alive()
        assert errors == []
        wait_until(lambda: len(server.replicas("Decoder")) == 1, 60, "it is gone again")
        # What it had begun was not lost with it.
        assert [one.error for one in ask_all(server)] == [""] * len(QUESTIONS)
