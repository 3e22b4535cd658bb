"""The Serve configuration of a manifest, deployed as the operator does it, on a real Ray."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import httpx
import pytest
import redis

from tests.k8s.pod import Pod, own_variables, stores
from tests.k8s.rendering import ROOT
from tests.k8s.stores import PASSWORD


@pytest.mark.slow
def test_what_the_operator_deploys_answers_a_question(model_folder: str, tmp_path: Path) -> None:
    # Short: Ray's sockets lie in it.
    temporary = Path(f"/tmp/pd{os.getpid()}")
    temporary.mkdir()
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    variables = own_variables(str(temporary)) | {"PATH": path, "PLATO_MODEL": model_folder}
    try:
        with stores(tmp_path) as there:
            pod = Pod(there, variables=variables, folder=ROOT)
            assert pod.run("python", "-m", "plato.models").strip() == model_folder
            with pod.ray():
                config = tmp_path / "serve.yaml"
                pod.deploy(config, known_as=str(config))
                models = httpx.get(f"{pod.url}/v1/models", timeout=10).json()
                answer = httpx.post(
                    f"{pod.url}/v1/chat/completions",
                    json={
                        "model": models["data"][0]["id"],
                        "messages": [{"role": "user", "content": "What is a harbour for?"}],
                        "max_tokens": 40,
                        "plato": {"mode": "plato", "max_nodes": 2},
                    },
                    timeout=60,
                ).json()
                assert answer["choices"][0]["message"]["content"]
                assert answer["plato"]["mode"] == "plato"
                assert answer["plato"].get("degraded", []) == []
                run = answer["plato"]["run"]
            # Each store has what it is for, and nothing of the other's.
            with redis.Redis(port=there.context, password=PASSWORD) as client:
                keys = [key.decode() for key in client.scan_iter("*")]
                assert any(run in key for key in keys)
                assert not any(key.startswith("RAY") for key in keys)
            with redis.Redis(port=there.gcs, password=PASSWORD) as client:
                keys = [key.decode() for key in client.scan_iter("*")]
                assert any("ACTOR" in key for key in keys)
                assert not any(key.startswith("plato") for key in keys)
    finally:
        shutil.rmtree(temporary)
