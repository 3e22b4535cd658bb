"""How `plato serve` serves, with and without Ray."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from types import FrameType

from plato.api.access.tenants import Tenants
from plato.errors import PlatoError, SettingsError
from plato.settings import LOCAL_HOSTS, Settings

SECOND_S = 1.0
"""An interrupt this long after the first signal is the operator's second: stop at once. One that
comes sooner is the same, sent to this process and to its group."""
USAGE_ERROR = 2
"""The exit status of invalid options."""
SHOW_CURSOR = "\x1b[?25h"
"""Control sequence for terminals (DECTCEM); progress bars hide it."""


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """Options of `plato serve`."""

    settings: Settings
    host: str = "127.0.0.1"
    port: int = 8000
    metrics_port: int | None = None
    """Port of the Prometheus metrics of the Ray application; None: a free port."""
    open_metrics: bool = False
    """Whether they, and Ray's own ports, can be reached from other machines."""
    open_page: bool = False
    """Whether to open the page in a browser."""
    key: str | None = None
    """An API key to show once the server is ready."""

    @property
    def url(self) -> str:
        """Base URL of the server."""
        return f"http://{_in_url(self.host)}:{self.port}"

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


def secured(settings: Settings, host: str, *, allow_anonymous: bool) -> Settings:
    """The settings of a server at `host`, which answers strangers only if that is allowed.

    Raises `SettingsError`, also if the keys cannot be read.
    """
    # Early: a broken key file is found before a model is loaded.
    Tenants(settings)
    if settings.protected or allow_anonymous:
        return settings
    if not _is_loopback(host):
        raise SettingsError(
            f"everybody who reaches {host} could ask; set --api-keys-file, --api-key or "
            "--tenant-header, or add --allow-anonymous if something else protects it"
        )
    if settings.allowed_hosts:
        return settings
    return settings.model_copy(update={"allowed_hosts": (*LOCAL_HOSTS, _in_url(host))})


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


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
        sys.stderr.write(f"plato: {error.message}\n")
        return USAGE_ERROR if isinstance(error, SettingsError) else 1
    return 0


def _leave(_: int, frame: FrameType | None) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(SHOW_CURSOR)
    sys.stderr.flush()
    os._exit(0)
