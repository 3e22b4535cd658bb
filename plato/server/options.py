"""The command line of `plato serve`, with and without Ray."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from types import FrameType

from plato.api.access.tenants import Tenants
from plato.errors import PlatoError, SettingsError
from plato.settings import LOCAL_HOSTS, Settings, read_settings

SECOND_S = 1.0
"""An interrupt this long after the first signal is the operator's second: stop at once. One that
comes sooner is the same, sent to this process and to its group."""
USAGE_ERROR = 2
"""The exit status of invalid options, as argparse has it."""


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """Options of `plato serve`."""

    settings: Settings
    host: str
    port: int
    metrics_port: int | None
    """Port of the Prometheus metrics of the Ray application; None: a free port."""
    open_metrics: bool
    """Whether they, and Ray's own ports, can be reached from other machines."""
    embedded: bool
    """Whether to serve in this process, without Ray."""

    @property
    def url(self) -> str:
        """Base URL of the server."""
        return f"http://{_in_url(self.host)}:{self.port}"

    @classmethod
    def parse(cls, arguments: Sequence[str]) -> ServeOptions:
        """Parse arguments; exits with status 2 if one is invalid."""
        parser = argparse.ArgumentParser(
            prog="plato serve",
            description="Serve Plato on this machine.",
            epilog="Settings are the fields of plato.settings.Settings; docs/operations.md lists "
            "them.",
        )
        parser.add_argument("--host", default="127.0.0.1")
        parser.add_argument("--port", type=int, default=8000)
        parser.add_argument(
            "--allow-anonymous",
            action="store_true",
            help="without API keys, answer everybody who reaches a --host other than loopback",
        )
        parser.add_argument(
            "--embedded", action="store_true", help="serve in one process, without Ray"
        )
        parser.add_argument(
            "--metrics-port",
            type=int,
            help="port of the Prometheus metrics; default: a free port; with --embedded they are "
            "at /metrics",
        )
        parser.add_argument(
            "--open-metrics",
            action="store_true",
            help="let other machines reach the Prometheus metrics, and Ray's own ports, which need "
            "a token; default: loopback only",
        )
        parser.add_argument("--model", metavar="NAME", help="name on the hub, or folder")
        parser.add_argument(
            "--engine",
            metavar="NAME",
            help="torch (built in, the default), vllm (in this process), or openai (the servers at "
            "--upstream)",
        )
        parser.add_argument(
            "--upstream",
            dest="upstreams",
            action="append",
            metavar="URL",
            help="server of --engine openai, such as http://127.0.0.1:8000; repeat it for several",
        )
        parser.add_argument("settings", nargs="*", metavar="key=value")
        given = parser.parse_args(arguments)
        for name in ("metrics_port", "open_metrics"):
            if given.embedded and getattr(given, name):
                option = name.replace("_", "-")
                parser.error(f"--{option} is for Ray; with --embedded, metrics are at /metrics")
        try:
            settings = read_settings(_values(given))
            # Early: a broken key file is found before a model is loaded.
            Tenants(settings)
        except SettingsError as error:
            parser.error(error.message)
        if not (settings.protected or given.allow_anonymous):
            if not _is_loopback(given.host):
                parser.error(
                    f"everybody who reaches {given.host} could ask; set api_keys_file, api_keys or "
                    "tenant_header, or add --allow-anonymous if something else protects it"
                )
            if not settings.allowed_hosts:
                hosts = (*LOCAL_HOSTS, _in_url(given.host))
                settings = settings.model_copy(update={"allowed_hosts": hosts})
        return cls(
            settings,
            given.host,
            given.port,
            given.metrics_port,
            given.open_metrics,
            given.embedded,
        )

    def bind(self) -> socket.socket:
        """A socket at host and port that nobody else listens on; raises `SettingsError`.

        Without SO_REUSEPORT: with it, two servers of the same user would share the connections.
        """
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        # asyncio turns Nagle's algorithm off only where the protocol is named. With it, responses
        # on connections that are kept wait for the client's delayed acknowledgement: 40 ms.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((self.host, self.port))
        except OSError as error:
            listener.close()
            raise SettingsError(
                f"cannot listen on {self.host}:{self.port} ({error.strerror}); stop the server "
                "that uses it, or choose another with --port"
            ) from error
        return listener


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _values(given: argparse.Namespace) -> dict[str, object]:
    """The settings of a command line. Raises `SettingsError` if one is given twice."""
    values: dict[str, object] = {**parse_assignments(given.settings)}
    for name in ("model", "engine", "upstreams"):
        value = getattr(given, name)
        if value is None:
            continue
        if name in values:
            raise SettingsError(f"{name} is given as an option and as {name}=...; keep one of them")
        values[name] = value
    return values


def parse_assignments(items: Iterable[str]) -> dict[str, str]:
    """Settings written as `key=value`. Raises `SettingsError`."""
    values: dict[str, str] = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not equals:
            raise SettingsError(f"'{item}' is not a setting; write key=value")
        values[key] = value
    return values


def stop_signals() -> set[signal.Signals]:
    """The signals that stop a server."""
    signals = {signal.SIGINT, signal.SIGTERM}
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        # `nohup` ignores it.
        signals.add(signal.SIGHUP)
    return signals


def run_server(serve: Callable[[], None]) -> int:
    """Call `serve`; returns the exit status. A `PlatoError` becomes one line.

    A signal ends the process at once, until `serve` handles it: as long as it loads, there is
    nothing to finish, and threads that load a model would have to be waited for.
    """
    for number in stop_signals():
        signal.signal(number, _leave)
    try:
        serve()
    except PlatoError as error:
        sys.stderr.write(f"plato serve: {error.message}\n")
        return USAGE_ERROR if isinstance(error, SettingsError) else 1
    return 0


def _leave(_: int, frame: FrameType | None) -> None:
    sys.stderr.flush()
    os._exit(0)


def stage_reporter() -> Callable[[str], None]:
    """Prints stages of the start to standard error, with the seconds since this call."""
    started = time.monotonic()

    def report(stage: str) -> None:
        sys.stderr.write(f"{time.monotonic() - started:5.1f} s  {stage}\n")
        sys.stderr.flush()

    return report
