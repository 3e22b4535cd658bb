"""A node of a Ray cluster dies as a machine does, under eight runs; every answer is complete."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import httpx
import psutil
import pytest

from tests.end_to_end.asking import QUESTIONS, Followed, ask_all, report
from tests.end_to_end.server import Server
from tests.end_to_end.waiting import wait_until

pytestmark = pytest.mark.soak

SERVICES = ("Ingress", "SchedulerService", "PlannerService")


def node_of(process: psutil.Process) -> int:
    """The raylet that a replica belongs to."""
    (raylet,) = [parent.pid for parent in process.parents() if parent.name() == "raylet"]
    return int(raylet)


def nodes_of(server: Server, deployment: str) -> list[int]:
    """The nodes of a deployment's replicas, one for each."""
    return sorted(node_of(process) for process in server.replicas(deployment))


def kill(node: int) -> None:
    """End everything on a node at once; nothing of it says goodbye."""
    raylet = psutil.Process(node)
    for process in [raylet, *raylet.children(recursive=True)]:
        process.kill()


def fetch(server: Server, answer: Followed) -> None:
    """Get the answer of a client whose connection ended with its ingress, by the run's id."""

    def ended() -> bool:
        try:
            found = httpx.get(f"{server.url}/v1/runs/{answer.run}", timeout=10)
        except httpx.HTTPError:
            return False
        if found.status_code != httpx.codes.OK or found.json()["status"] != "done":
            return False
        answer.text = found.json()["answer"]
        return True

    wait_until(ended, 60, "the run is done")


def test_a_node_that_dies_costs_time_and_no_word(
    model_folder: str, valkey_url: str, tmp_path: Path
) -> None:
    with Server(
        tmp_path,
        ("tests.end_to_end.nodes",),
        model=model_folder,
        served_model_name="small",
        redis_url=valkey_url,
        dtype="float32",
        decoders=2,
        schedulers=2,
        planners=2,
        ingresses=2,
        decoder_cpus=0.5,
        decoder_threads=1,
        kv_budget_mb=256,
        node_attempts=8,
    ) as server:
        raylets = [one for one in server.processes("raylet") if one.name() == "raylet"]
        assert len(raylets) == 3
        workers = nodes_of(server, "Decoder")
        assert len(set(workers)) == 2, "one decoder on each worker, because it offers one place"
        there = {name: nodes_of(server, name) for name in SERVICES}
        assert {node for nodes in there.values() for node in nodes} <= set(workers), (
            "the head has no work"
        )

        undisturbed = ask_all(server)
        assert [one.error for one in undisturbed] == [""] * len(QUESTIONS)

        # A scheduler goes with it, and if it can be an ingress stays, as a cluster would have it.
        victim = min(
            workers,
            key=lambda node: (node not in there["SchedulerService"], there["Ingress"].count(node)),
        )
        killed: list[float] = []

        def disturb() -> None:
            kill(victim)
            killed.append(time.monotonic())

        answers = ask_all(server, disturb)
        cut = [one for one in answers if one.error]
        report(
            f"a node killed, with its decoder and {[n for n in there if victim in there[n]]}; "
            f"{len(cut)} connections broken",
            answers,
        )
        assert len(killed) == 1
        assert victim not in nodes_of(server, "Decoder")
        assert sum(one.restarts for one in answers) + len(cut) > 0, "it was in mid-stream"
        for one in cut:
            fetch(server, one)
        assert [one.text for one in answers] == [one.text for one in undisturbed]

        # What Kubernetes would do next: a new pod, and with it a place for a decoder.
        server.tell(signal.SIGUSR1)
        took = wait_until(
            lambda: len(set(nodes_of(server, "Decoder")) - {victim}) == 2,
            60,
            "a decoder starts on the new node",
        )
        print(f"a decoder started on a new node {took:.0f} s after that was asked for")
        wait_until(server.ready, 30, "ready again")
