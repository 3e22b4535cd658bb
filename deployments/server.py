"""`plato serve` without `--embedded`: serves the application on Ray until it is stopped."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import ExitStack

from deployments.guard import guarded
from plato.logs import configure_logs
from plato.server.options import ServeOptions, run_server, stop_signals
from plato.server.stages import Stages


def main(options: ServeOptions) -> int:
    """Serve until a signal; returns the exit status."""
    configure_logs(options.settings.log_level, deployment="serve")
    return guarded(lambda: run_server(lambda: _serve(options)), options.settings.drain_s)


def _serve(options: ServeOptions) -> None:
    if options.open_metrics:
        # Read by Ray when it is imported; see `deployments.local`.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "1"
    guard = os.getppid()
    with ExitStack() as opened:
        with Stages() as stages:
            stages("loading Ray")
            # Takes seconds.
            from deployments.local import LocalApp

            app = LocalApp(
                options.settings,
                host=options.host,
                port=options.port,
                logs=True,
                metrics_port=options.metrics_port,
                report=stages,
                progress=stages.progress,
            )
            opened.enter_context(app)
        told = threading.Event()
        for number in stop_signals():
            signal.signal(number, lambda *_: told.set())
        # Whoever reads it may stop the server at once.
        stages.ready(options, app.metrics_url)
        told.wait()
        stages("stopping")
        if os.getppid() == guard:
            app.drain()
        else:
            # It was killed: nobody waits for answers.
            app.kill()
