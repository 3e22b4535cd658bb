"""`plato serve`: serves the application on this machine until it is stopped.

    python -m deployments [--host HOST] [--port PORT] [--metrics-port PORT] [key=value ...]

The keys are the fields of `plato.settings.Settings`.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from types import FrameType

from pydantic import ValidationError

from deployments.local import LocalApp
from plato.errors import PlatoError
from plato.logs import configure_logs
from plato.settings import Settings


def main() -> int:
    """Serve until SIGINT or SIGTERM; returns the exit status."""
    parser = argparse.ArgumentParser(prog="plato serve", description="Serve Plato on this machine.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument(
        "--metrics-port", type=int, help="port of the Prometheus metrics; default: a free port"
    )
    parser.add_argument("settings", nargs="*", metavar="key=value")
    arguments = parser.parse_args()
    given: dict[str, str] = {}
    for item in arguments.settings:
        key, equals, value = item.partition("=")
        if not equals:
            parser.error(f"'{item}' is not a setting; write key=value")
        given[key] = value
    try:
        settings = Settings.model_validate(given)
    except ValidationError as error:
        parser.error(str(error))
    configure_logs(settings.log_level, deployment="serve")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)
    app = LocalApp(
        settings,
        host=arguments.host,
        port=arguments.port,
        logs=True,
        metrics_port=arguments.metrics_port,
    )
    try:
        with app:
            sys.stderr.write(f"serving {settings.model_name} at {app.url}/v1\n")
            sys.stderr.write(f"Prometheus metrics at {app.metrics_url}\n")
            sys.stderr.flush()
            threading.Event().wait()
    except PlatoError as error:
        sys.stderr.write(f"plato serve: {error.message}\n")
        return 1
    return 0


def _leave(number: int, _: FrameType | None) -> None:
    """Unwind, which stops the application; later signals are ignored."""
    signal.signal(number, signal.SIG_IGN)
    raise SystemExit(0)


if __name__ == "__main__":
    sys.exit(main())
