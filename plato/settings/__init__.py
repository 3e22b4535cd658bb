"""All settings.

Every field can be set by an environment variable (`PLATO_` and the name in capitals), by a flag of
`plato serve`, in its file (`--config`), by a Serve argument (`serve run deployments.app:build
name=value`), or in the constructor. Flags, arguments and the constructor take precedence, then the
environment, then the file, then the default.
"""

from plato.settings.reading import read_settings
from plato.settings.sampling import SamplingFields
from plato.settings.settings import Settings, section_of, variable_of
from plato.settings.values import (
    DEFAULT_MODEL,
    LOCAL_HOSTS,
    MAX_NODES,
    MAX_PARAMETER,
    MAX_TITLE_CHARS,
    UPSTREAM_ENGINE,
    VLLM_ENGINE,
)

__all__ = [
    "DEFAULT_MODEL",
    "LOCAL_HOSTS",
    "MAX_NODES",
    "MAX_PARAMETER",
    "MAX_TITLE_CHARS",
    "UPSTREAM_ENGINE",
    "VLLM_ENGINE",
    "SamplingFields",
    "Settings",
    "read_settings",
    "section_of",
    "variable_of",
]
