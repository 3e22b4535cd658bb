"""`plato serve` without `--embedded`: serves the application on Ray until it is stopped."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType

from plato.errors import PlatoError, SettingsError
from plato.logs import configure_logs
from plato.server.options import USAGE_ERROR, ServeOptions, stage_reporter


def main() -> int:
    """Serve until SIGINT or SIGTERM; returns the exit status."""
    options = ServeOptions.parse(sys.argv[1:])
    if options.embedded:
        from plato.server import embedded

        return embedded.main(options)
    configure_logs(options.settings.log_level, deployment="serve")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)
    try:
        # Serve's proxies would share the port with those of another server.
        options.bind().close()
        _serve(options)
    except PlatoError as error:
        sys.stderr.write(f"plato serve: {error.message}\n")
        return USAGE_ERROR if isinstance(error, SettingsError) else 1
    return 0


def _serve(options: ServeOptions) -> None:
    report = stage_reporter()
    report("loading Ray")
    # Takes seconds.
    from deployments.local import LocalApp

    with LocalApp(
        options.settings,
        host=options.host,
        port=options.port,
        logs=True,
        metrics_port=options.metrics_port,
        report=report,
    ) as app:
        report(f"serving {options.settings.model_name} at {app.url}/v1")
        report(f"Prometheus metrics at {app.metrics_url}")
        threading.Event().wait()


def _leave(number: int, _: FrameType | None) -> None:
    """Unwind, which stops the application; later signals are ignored."""
    signal.signal(number, signal.SIG_IGN)
    raise SystemExit(0)


if __name__ == "__main__":
    sys.exit(main())
