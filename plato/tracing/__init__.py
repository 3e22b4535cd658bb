"""Traces of runs for OpenTelemetry: `run_spans` derives them from events, `tracing` exports them.

Only `tracing` imports OpenTelemetry, and only where the setting `otlp_endpoint` asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from plato.errors import SettingsError
from plato.runs import RunEvent, RunState
from plato.settings import Settings

if TYPE_CHECKING:
    from plato.tracing.tracing import Tracing

RunObserver = Callable[[RunState, Sequence[RunEvent]], None]
"""Called with a run that has ended, and all of its events."""


def load_tracing() -> type[Tracing]:
    """The class, with OpenTelemetry. Raises `SettingsError` if that is not installed."""
    try:
        from plato.tracing.tracing import Tracing
    except ImportError as error:
        raise SettingsError(
            f"otlp_endpoint needs OpenTelemetry, and {error.name} is not installed; run "
            "`pip install 'plato-serve[otel]'`, or leave otlp_endpoint out"
        ) from error
    return Tracing


def open_tracing(settings: Settings, name: str) -> Tracing | None:
    """The tracing of the process called `name`, which the caller closes; `None` if it is off.

    Raises `SettingsError` if OpenTelemetry is not installed.
    """
    if settings.otlp_endpoint is None:
        return None
    return load_tracing()(settings, settings.otlp_endpoint, name)
