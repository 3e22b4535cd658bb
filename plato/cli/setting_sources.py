"""Where settings come from: flags, the environment, a file, in this order; else the default."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plato.cli.errors import UsageError
from plato.cli.setting_flags import flag_of
from plato.settings import Settings, read_settings, variable_of


@dataclass(frozen=True, slots=True)
class SourcedSettings:
    """Settings, and where those that are not defaults come from."""

    settings: Settings
    sources: Mapping[str, str]
    """By setting: a flag, a variable, or a file."""


def gather_settings(flags: Mapping[str, Any], file: Path | None) -> SourcedSettings:
    """The settings of a command line.

    Raises `UsageError` if the file cannot be read, `SettingsError` if a value is invalid; it names
    the flag, the variable or the file.
    """
    sources = {
        name: variable_of(name) for name in Settings.model_fields if _is_in_environment(name)
    }
    values = {} if file is None else _read(file)
    of_file = {name: value for name, value in values.items() if name not in sources}
    sources |= dict.fromkeys(of_file, str(file))
    sources |= {name: flag_of(name) for name in flags}
    written = {name: flag_of(name) for name in flags} | {
        name: f"{name} in {file}" for name in of_file if name not in flags
    }
    return SourcedSettings(read_settings({**of_file, **flags}, written), sources)


def _is_in_environment(name: str) -> bool:
    # pydantic-settings ignores case, too.
    return variable_of(name) in {variable.upper() for variable in os.environ}


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise UsageError(f"{file} cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise UsageError(
            f"{file} is not TOML ({error}); write a line for each setting, such as: max_nodes = 4"
        ) from error
