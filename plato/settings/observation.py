"""Traces, logs, and what benchmarks need."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from plato.settings.values import Section, Url


class TracingSettings(Section):
    """OpenTelemetry."""

    title = "Tracing"

    otlp_endpoint: Url | None = Field(
        default=None,
        description="URL of an OpenTelemetry collector, for OTLP over HTTP, such as "
        "`http://localhost:4318`, which gets a trace of every run; default: no traces. Needs the "
        "extra `otel`.",
    )
    otlp_texts: bool = Field(
        default=False,
        description="Whether traces have the texts of questions, titles and answers.",
    )


class LogSettings(Section):
    """Measurements and the log."""

    title = "Measurements and logs"

    equal_work: bool = Field(
        default=False,
        description="For benchmarks: accept `plato.decode_plan` and `plato.exact_lengths`, which "
        "make "
        "answers of different modes equal work.",
    )

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="Least level of the lines in the log."
    )
