"""A pod of a RayService without Kubernetes: what the operator runs in it, and how it deploys.

One Ray node of this machine stands for the head and for the worker groups of the overlay
`cpu-small`. Everything else is as the manifests say: environment, stores with their passwords,
fetching the model, and the Serve configuration, which goes to the head's dashboard.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import yaml

from plato.ports import free_port
from tests.end_to_end.waiting import says_ok, status, wait_until
from tests.k8s.rendering import render
from tests.k8s.stores import PASSWORD, running

OVERLAY = "cpu-small"
READY_DEADLINE_S = 120.0


@dataclass(frozen=True)
class Stores:
    """Ports of the two stores."""

    context: int
    gcs: int


@contextmanager
def stores(folder: Path) -> Iterator[Stores]:
    """Both stores, started with the commands of their pods."""
    ports = Stores(free_port(), free_port())
    for name in ("context-store", "gcs-store"):
        (folder / name).mkdir()
    with (
        running("context-store", folder / "context-store", ports.context),
        running("gcs-store", folder / "gcs-store", ports.gcs),
    ):
        yield ports


class Pod:
    """Runs commands as a pod's container does; `inside` is put before each, a chroot for one."""

    def __init__(
        self,
        there: Stores,
        *,
        inside: Sequence[str] = (),
        variables: Mapping[str, str],
        folder: Path | None = None,
    ) -> None:
        """`variables` go before those of the manifests; `folder` is where commands run."""
        manifests = render(OVERLAY)
        (container,) = manifests.cluster["headGroupSpec"]["template"]["spec"]["containers"]
        self._inside = tuple(inside)
        self._folder = folder
        self._gcs = there.gcs
        self._variables = {
            **{name: value for name, value in manifests.environment(container).items() if value},
            "PLATO_REDIS_URL": f"redis://:{PASSWORD}@127.0.0.1:{there.context}/0",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            **variables,
        }
        self._config = manifests.serve_config
        # The only change to it: the port may be somebody else's on this machine.
        self._config["http_options"]["port"] = free_port()
        self.url = f"http://127.0.0.1:{self._config['http_options']['port']}"
        self._dashboard = free_port()

    def run(self, *command: str, text: str | None = None) -> str:
        """Run a command to its end; returns what it printed."""
        done = subprocess.run(
            [*self._inside, *command],
            env=self._variables,
            cwd=self._folder,
            input=text,
            capture_output=True,
            text=True,
            timeout=READY_DEADLINE_S,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.stdout[-1500:]} {done.stderr[-1500:]}"
        return done.stdout

    @contextmanager
    def ray(self) -> Iterator[None]:
        """`ray start`, with the control store's data in the store that is for it."""
        groups = render(OVERLAY).groups.values()
        resources: dict[str, float] = {}
        for group in groups:
            # As a shell would unquote it.
            resources |= json.loads(json.loads(group["rayStartParams"]["resources"]))
        cpus = sum(int(group["rayStartParams"]["num-cpus"]) for group in groups)
        command = [
            *("ray", "start", "--head", "--block", f"--port={free_port()}"),
            *(f"--num-cpus={cpus}", f"--resources={json.dumps(resources)}"),
            *("--dashboard-host=127.0.0.1", f"--dashboard-port={self._dashboard}"),
            f"--dashboard-agent-listen-port={free_port()}",
            f"--metrics-export-port={free_port()}",
            f"--ray-client-server-port={free_port()}",
            f"--redis-password={PASSWORD}",
            "--object-store-memory=100000000",
        ]
        with tempfile.TemporaryFile() as log:
            head = subprocess.Popen(
                [*self._inside, *command],
                env=self._variables | {"RAY_REDIS_ADDRESS": f"127.0.0.1:{self._gcs}"},
                cwd=self._folder,
                stdout=log,
                stderr=log,
            )
            try:
                wait_until(self._has_dashboard, 60, "the dashboard answers", every_s=0.1)
                yield
            finally:
                family = psutil.Process(head.pid).children(recursive=True)
                head.send_signal(signal.SIGTERM)
                _, alive = psutil.wait_procs([psutil.Process(head.pid), *family], 15)
                for process in alive:
                    process.kill()
                head.wait()

    def _has_dashboard(self) -> bool:
        # Any answer will do: it wants a token.
        return status(f"http://127.0.0.1:{self._dashboard}/api/version") is not None

    def deploy(self, config: Path, *, known_as: str) -> None:
        """What the operator sends to the dashboard; `config` is `known_as` to the commands."""
        config.write_text(yaml.safe_dump(self._config))
        address = f"http://127.0.0.1:{self._dashboard}"
        self.run("serve", "deploy", "--address", address, known_as)
        wait_until(self.ready, READY_DEADLINE_S, "a question would be answered", every_s=0.1)

    def ready(self) -> bool:
        """Whether a question would be answered now."""
        return says_ok(f"{self.url}/readyz")


def own_variables(folder: str) -> dict[str, str]:
    """This process's environment without what is Ray's or Plato's, and short temporary paths."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "PLATO_"))
    }
    return kept | {"TMPDIR": folder, "RAY_TMPDIR": folder}
