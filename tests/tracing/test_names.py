"""The names of attributes, and what is said without the extra."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from plato.errors import SettingsError
from plato.settings import Settings
from plato.tracing import attributes, open_tracing

EXPORTER = "opentelemetry.exporter.otlp.proto.http.trace_exporter"
SOURCES = Path(attributes.__file__).parent
NAMES = {
    name
    for source in SOURCES.glob("*.py")
    for name in re.findall(r'"((?:gen_ai|plato|http|url)\.[a-z0-9_.]+)"', source.read_text())
} - {"plato.tracing"}


def test_all_attributes_are_documented() -> None:
    documented = (SOURCES.parents[1] / "docs" / "tracing.md").read_text()
    assert len(NAMES) > 30
    assert not {name for name in NAMES if f"`{name}`" not in documented}


def test_those_of_the_conventions_are_in_them() -> None:
    pytest.importorskip(EXPORTER)
    from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
    from opentelemetry.semconv.attributes import (
        error_attributes,
        http_attributes,
        url_attributes,
    )

    modules = (gen_ai_attributes, error_attributes, http_attributes, url_attributes)
    known = {value for module in modules for value in vars(module).values() if type(value) is str}
    assert {name for name in NAMES if not name.startswith("plato.")} <= known
    assert attributes.ERROR_TYPE in known


def test_without_the_extra_the_setting_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "plato.tracing.tracing", raising=False)
    monkeypatch.setitem(sys.modules, EXPORTER, None)
    with pytest.raises(SettingsError, match=r"pip install 'plato-serve\[otel\]'"):
        open_tracing(Settings(otlp_endpoint="http://localhost:4318"), "test")


def test_nothing_is_imported_or_started_without_the_setting() -> None:
    assert open_tracing(Settings(), "test") is None
