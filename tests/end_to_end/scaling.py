"""A server that is deployed anew when it is told to; for `test_draining`."""

from __future__ import annotations

import signal
import sys
from typing import Any

from deployments.local import APP_NAME, LocalApp  # isort: skip
from ray import serve

from deployments import app
from deployments.decoder import Decoder
from plato.settings import Settings

SIGNALS = {signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM}


class Plan:
    """How the application is deployed."""

    version: str = "1"
    """Serve replaces the replicas of another version, and leaves those of the same alone."""
    leaving = 0
    """Decoders fewer than the settings say."""


def main() -> None:
    """Serve until SIGTERM; arguments are those of `plato serve`.

    After SIGUSR1 there is one decoder less, after SIGUSR2 everything is replaced.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    port = int(sys.argv[sys.argv.index("--port") + 1])
    given = dict(argument.split("=", 1) for argument in sys.argv if "=" in argument)
    settings = Settings.model_validate(given)
    ordinary = app._deployment

    def planned(kind: Any, **options: Any) -> Any:
        if kind is Decoder:
            options["num_replicas"] -= Plan.leaving
        made = ordinary(kind, **options)
        # What `serve deploy` does by itself: without a version every deployment is a new one.
        made._version = Plan.version
        return made

    app._deployment = planned
    with LocalApp(settings, port=port, logs=True):
        while (told := signal.sigwait(SIGNALS)) != signal.SIGTERM:
            if told == signal.SIGUSR1:
                Plan.leaving += 1
            else:
                Plan.version += "1"
            serve.run(app.build(settings), name=APP_NAME, route_prefix="/")


if __name__ == "__main__":
    main()
