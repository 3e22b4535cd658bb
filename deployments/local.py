"""The application on this machine: a Ray of its own, which leaves nothing behind."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import signal
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Self

if "ray" not in sys.modules:
    # Ray reads these once. The token is for this process's own Ray; left to itself, Ray would
    # write one into the home folder.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Lines of many runs that differ in their ids only are not repetitions.
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")
    # Else a decoder's steps come after whatever else the machine does.
    os.environ.setdefault("RAY_worker_niceness", "0")
    if os.environ.setdefault("RAY_AUTH_MODE", "token") == "token":
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))

import ray
from ray import serve

from deployments.app import build
from plato.models import resolve_model
from plato.settings import Settings

logger = logging.getLogger(__name__)

APP_NAME = "plato"
SERVE_LOGS = {"log_level": "WARNING", "encoding": "JSON"}
"""Of Serve itself, in every process: at INFO it writes a line for each renewal of a lease."""


def _services(settings: Settings) -> int:
    """Replicas that are not decoders."""
    stores = 1 if settings.redis_url is None else 0
    return settings.ingresses + settings.schedulers + settings.planners + stores


def reserved_cpus(settings: Settings) -> float:
    """CPUs that the application's replicas reserve from Ray."""
    services = _services(settings) * settings.service_cpus
    return settings.decoders * settings.decoder_cpus + services


def reserved_resources(settings: Settings) -> dict[str, float]:
    """Custom resources that the application's replicas take, at the most."""
    decoders = settings.max_decoders or settings.decoders
    taken = Counter({settings.decoder_resource: decoders})
    taken.update({settings.service_resource: _services(settings)})
    return {name: float(count) for name, count in taken.items() if name is not None}


@contextmanager
def start_ray(
    cpus: float,
    resources: dict[str, float] | None = None,
    *,
    logs: bool = False,
    metrics_port: int | None = None,
) -> Iterator[None]:
    """A Ray of this process alone; everything of it is gone after the context.

    `resources` are custom ones; `logs` forwards the logs of all replicas to standard error.
    Metrics are at `metrics_port`, or at a free one.
    """
    # Short: Ray puts sockets into it, whose paths may have 107 characters.
    folder = tempfile.mkdtemp(prefix="plato-")
    try:
        with _own_signals():
            ray.init(
                address="local",
                num_cpus=cpus,
                resources=resources,
                include_dashboard=False,
                log_to_driver=logs,
                logging_level=logging.WARNING,
                _temp_dir=folder,
                _metrics_export_port=metrics_port,
            )
        yield
    finally:
        if ray.is_initialized():
            ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


class LocalApp:
    """Starts Ray and the application, and stops both.

    Ray's files lie in a temporary folder that goes with it. What Ray reserves are numbers, not
    cores, so it is told to have what the settings ask for.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        host: str = "127.0.0.1",
        port: int = 8000,
        logs: bool = False,
        metrics_port: int | None = None,
    ) -> None:
        """`logs` forwards the logs of all replicas to standard error.

        Metrics are at `metrics_port`, or at a free one.
        """
        self._settings = settings
        self._host = host
        self._port = port
        self._logs = logs
        self._metrics_port = metrics_port
        self._ray: ExitStack | None = None

    @property
    def url(self) -> str:
        """Where the endpoint listens."""
        return f"http://{self._host}:{self._port}"

    @property
    def metrics_url(self) -> str:
        """What Prometheus scrapes, once the application runs."""
        (node,) = ray.nodes()
        return f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"

    def start(self) -> None:
        """Fetch the model, start Ray, deploy, and wait until questions can be answered."""
        # Here and not in a replica: a first download shows its progress.
        resolve_model(self._settings.model, self._settings.cache_dir)
        cpus = max(os.cpu_count() or 1, -(-reserved_cpus(self._settings) // 1))
        if not self._logs:
            logging.getLogger("ray.serve").setLevel(logging.WARNING)
        try:
            self._ray = ExitStack()
            resources = reserved_resources(self._settings)
            self._ray.enter_context(
                start_ray(cpus, resources, logs=self._logs, metrics_port=self._metrics_port)
            )
            serve.start(
                http_options={"host": self._host, "port": self._port},
                logging_config=SERVE_LOGS,
            )
            serve.run(
                build(self._settings),
                name=APP_NAME,
                route_prefix="/",
                logging_config=SERVE_LOGS,
            )
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the application and Ray, and remove Ray's files. Idempotent."""
        if ray.is_initialized():
            try:
                # Replicas end in order; the rest of Serve goes with Ray.
                serve.delete(APP_NAME)
            except Exception:
                logger.exception("shutting down the application failed")
        if self._ray is not None:
            self._ray.close()
            self._ray = None

    def __enter__(self) -> Self:
        if self._ray is None:
            self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep this process's signal handlers: Ray's would abort it, and leave everything behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            if handler is not None:
                signal.signal(number, handler)
