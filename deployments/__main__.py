"""`plato serve` without `--embedded`: serves the application on Ray until it is stopped."""

from __future__ import annotations

import os
import sys
import threading

from plato.logs import configure_logs
from plato.server.options import ServeOptions, run_server, stage_reporter


def main() -> int:
    """Serve until SIGINT or SIGTERM; returns the exit status."""
    options = ServeOptions.parse(sys.argv[1:])
    if options.embedded:
        from plato.server import embedded

        return embedded.main(options)
    configure_logs(options.settings.log_level, deployment="serve")
    return run_server(lambda: _serve(options))


def _serve(options: ServeOptions) -> None:
    # Serve's proxies would share the port with those of another server.
    options.bind().close()
    report = stage_reporter()
    report("loading Ray")
    if options.open_metrics:
        # Read by Ray when it is imported; see `deployments.local`.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "1"
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


if __name__ == "__main__":
    sys.exit(main())
