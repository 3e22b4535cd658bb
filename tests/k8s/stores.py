"""The containers of the Valkey pods, with a real Valkey and without Kubernetes."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

from plato.context.embedded import _binary
from tests.end_to_end.waiting import wait_until
from tests.k8s.rendering import render

PASSWORD = "0123456789abcdef"


@contextmanager
def running(store: str, folder: Path, port: int) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """The container of a store, with its files in `folder`; the process, and its command line."""
    manifests = render("gpu")
    (container,) = manifests.named("StatefulSet", store)["spec"]["template"]["spec"]["containers"]
    (configuration,) = [
        one for one in manifests.of("ConfigMap") if f"{store}.conf" in one.get("data", {})
    ]
    (folder / "data").mkdir(exist_ok=True)
    for name, text in configuration["data"].items():
        (folder / name).write_text(text)
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    if not (programs / "valkey-server").exists():
        (programs / "valkey-server").symlink_to(_binary())
    *shell, script = container["command"]
    here = script.replace("/etc/valkey", str(folder)).replace(
        "--dir /data", f"--dir {folder / 'data'} --port {port} --bind 127.0.0.1"
    )
    assert here != script
    process = subprocess.Popen(
        [*shell, here],
        env={"PATH": f"{programs}:{os.environ['PATH']}", "VALKEY_PASSWORD": PASSWORD},
        stdout=subprocess.DEVNULL,
    )
    try:
        with redis.Redis(port=port, password=PASSWORD) as client:
            wait_until(lambda: answers(client), 10, "Valkey answers")
        yield process, Path(f"/proc/{process.pid}/cmdline").read_text()
    finally:
        process.kill()
        process.wait()


def answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False
