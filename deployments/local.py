"""The application on this machine, in a private Ray instance that cleans up after itself."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Self

if "ray" not in sys.modules:
    # Ray reads these once. The token is for the private Ray instance; by default, Ray would write
    # one into the home folder.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Lines that differ only in the ids of runs are not duplicates.
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")
    # Progress is reported by `LocalApp`; a slow start on a busy machine is no cause for a warning.
    os.environ.setdefault("RAY_SERVE_SLOW_STARTUP_WARNING_S", "600")
    # With "0", Ray takes the loopback address for the machine's, and listens only there, with the
    # metrics and its own ports; otherwise, on Linux, at all addresses.
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    # Otherwise decoders run at low priority.
    os.environ.setdefault("RAY_worker_niceness", "0")
    # A proxy that died is replaced after three checks; the default is one in 10 s.
    os.environ.setdefault("RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S", "0.5")
    # By default a response has two ids, of its run and of Serve's request.
    os.environ.setdefault(
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH", "deployments.proxy.middleware"
    )
    if os.environ.setdefault("RAY_AUTH_MODE", "token") == "token":
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))

import ray
from ray import serve
from ray.serve.schema import DeploymentStatus

from deployments.app import build
from deployments.session_folder import session_folder
from plato.assembly import check_upstreams
from plato.context.cluster import refuse_cluster
from plato.models import Progress, resolve_model
from plato.models.sampling import default_sampling
from plato.settings import Settings
from plato.tracing import load_tracing

logger = logging.getLogger(__name__)

APP_NAME = "plato"
STATUS_INTERVAL_S = 1.0
"""Asking more often would slow down the start that it reports."""
DRAIN_SLACK_S = 5.0
SERVE_LOGS = {"log_level": "WARNING", "encoding": "JSON"}
"""For Serve itself, in every process: at INFO it logs a line for every lease renewal."""


def _services(settings: Settings) -> int:
    """Number of replicas that are not decoders."""
    stores = 1 if settings.redis_url is None else 0
    return settings.ingresses + settings.schedulers + settings.planners + stores


def reserved_cpus(settings: Settings) -> float:
    """CPUs that the application's replicas reserve from Ray."""
    services = _services(settings) * settings.service_cpus
    return settings.decoder_count * settings.decoder_cpus + services


def reserved_resources(settings: Settings) -> dict[str, float]:
    """Maximum custom resources of the application's replicas."""
    decoders = settings.max_decoders or settings.decoder_count
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
    """A private Ray instance, removed completely after the context.

    `resources` are custom resources; `logs` forwards the logs of all replicas to standard error.
    Metrics are served at `metrics_port`, or at a free port, of the loopback address.
    """
    with session_folder() as folder:
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


class LocalApp:
    """Starts Ray and the application, and stops both.

    Ray's files are in a temporary folder that is removed with it. Ray's CPUs are only a bookkeeping
    number, so Ray is configured with as many as the settings require.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        host: str = "127.0.0.1",
        port: int = 8000,
        logs: bool = False,
        metrics_port: int | None = None,
        report: Callable[[str], None] = lambda _: None,
        progress: Progress | None = None,
    ) -> None:
        """`logs` forwards the logs of all replicas to standard error.

        Metrics are served at `metrics_port`, or at a free port. `report` is called with each stage
        of the start, from several threads, `progress` with that of a download.
        """
        self._report = report
        self._progress = progress
        self._settings = settings
        self._host = host
        self._port = port
        self._logs = logs
        self._metrics_port = metrics_port
        self._ray: ExitStack | None = None

    @property
    def url(self) -> str:
        """Base URL of the HTTP endpoint."""
        return f"http://{self._host}:{self._port}"

    @property
    def metrics_url(self) -> str:
        """URL for Prometheus; available once the application runs."""
        (node,) = ray.nodes()
        return f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"

    def start(self) -> None:
        """Download the model, start Ray, deploy, and wait until the application is ready."""
        settings = self._settings
        if settings.redis_url is not None:
            # The replicas refuse it, too, but in tracebacks.
            refuse_cluster(settings.redis_url)
        if settings.otlp_endpoint is not None:
            # The same.
            load_tracing()
        # Here and not in a replica, to show the progress of a first download.
        self._report(f"looking for {settings.model}")
        folder = resolve_model(
            settings.model, settings.cache_dir, settings.model_revision, self._progress
        )
        # The replicas refuse an invalid file, too, but in tracebacks.
        default_sampling(settings, folder)
        if settings.upstreams:
            self._report(f"connecting to {', '.join(settings.upstreams)}")
            check_upstreams(settings, str(folder))
        cpus = max(os.cpu_count() or 1, -(-reserved_cpus(settings) // 1))
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        try:
            self._report("starting Ray")
            self._ray = ExitStack()
            resources = reserved_resources(settings)
            self._ray.enter_context(
                start_ray(cpus, resources, logs=self._logs, metrics_port=self._metrics_port)
            )
            serve.start(
                http_options={"host": self._host, "port": self._port},
                logging_config=SERVE_LOGS,
            )
            self._report(f"starting the application, loading {settings.model_name}")
            with _reporting(self._report):
                serve.run(
                    build(settings),
                    name=APP_NAME,
                    route_prefix="/",
                    logging_config=SERVE_LOGS,
                )
        except BaseException:
            self.stop()
            raise

    def drain(self) -> None:
        """Refuse new questions, and let answers end within `drain_s`; then hand over other runs."""
        limit_s = self._settings.drain_s + DRAIN_SLACK_S
        # In this order: what an answer needs is there until it has ended.
        for deployment in ("Ingress", "SchedulerService"):
            handle = serve.get_deployment_handle(deployment, APP_NAME)
            try:
                handle.broadcast("drain").results(timeout_s=limit_s)
            except Exception:
                logger.exception("draining %s failed", deployment)

    def stop(self) -> None:
        """Stop the application and Ray, and remove Ray's files. Idempotent."""
        if ray.is_initialized():
            try:
                # Waits for requests; the rest of Serve ends with Ray. `serve.shutdown` takes 12 s.
                serve.delete(APP_NAME)
            except Exception:
                logger.exception("shutting down the application failed")
        self.kill()

    def kill(self) -> None:
        """Kill all processes, and remove Ray's files. Idempotent."""
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
    """Keep this process's signal handlers: Ray's would abort it without clean-up."""
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


@contextmanager
def _reporting(report: Callable[[str], None]) -> Iterator[None]:
    """Report each deployment when its replicas are ready."""
    done = threading.Event()

    def watch() -> None:
        reported: set[str] = set()
        while not done.wait(STATUS_INTERVAL_S):
            app = serve.status().applications.get(APP_NAME)
            for name, deployment in () if app is None else app.deployments.items():
                if deployment.status == DeploymentStatus.HEALTHY and name not in reported:
                    reported.add(name)
                    report(f"{name} is ready")

    watching = threading.Thread(target=watch, name="report-start", daemon=True)
    watching.start()
    try:
        yield
    finally:
        done.set()
        watching.join()
