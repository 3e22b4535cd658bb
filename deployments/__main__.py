"""`plato serve` without `--embedded`: serves the application on Ray until it is stopped."""

from __future__ import annotations

import os
import signal
import sys
import threading

from deployments.guard import guarded
from plato.extras import needs
from plato.logs import configure_logs
from plato.server.options import ServeOptions, run_server, stage_reporter, stop_signals


def main() -> int:
    """Serve until a signal; returns the exit status."""
    options = ServeOptions.parse(sys.argv[1:])
    if options.embedded:
        with needs("torch"):
            from plato.server import embedded

        return embedded.main(options)
    configure_logs(options.settings.log_level, deployment="serve")
    return guarded(lambda: run_server(lambda: _serve(options)), options.settings.drain_s)


def _serve(options: ServeOptions) -> None:
    # Serve's proxies would share the port with those of another server.
    options.bind().close()
    report = stage_reporter()
    report("loading Ray")
    if options.open_metrics:
        # Read by Ray when it is imported; see `deployments.local`.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "1"
    guard = os.getppid()
    with needs("serve"):
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
        told = threading.Event()
        for number in stop_signals():
            signal.signal(number, lambda *_: told.set())
        told.wait()
        report("stopping")
        if os.getppid() == guard:
            app.drain()
        else:
            # It was killed: nobody waits for answers.
            app.kill()


if __name__ == "__main__":
    sys.exit(main())
