"""Kinds of values, and limits that do not depend on settings."""

from __future__ import annotations

from typing import Annotated, ClassVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field
from pydantic_settings import NoDecode

DEFAULT_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
MAX_NODES = 32
"""Maximum number of nodes in any plan."""
MAX_TITLE_CHARS = 200
"""Maximum length of any node's title."""
MAX_PARAMETER = 10**9
"""Bound of the engine for sampling parameters; also of the inverse of a penalty."""
NULL = "null"
"""No value, where text is written."""
VLLM_ENGINE = "vllm"
UPSTREAM_ENGINE = "openai"


def split(value: object) -> object:
    """A list in one string, separated by commas."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _base_url(url: str) -> str:
    """The URL of a server, without the `/v1` that many people add."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url!r} is no URL; write http://host:port")
    if parts.username is not None or parts.password is not None:
        raise ValueError("a URL has a user or password, which logs would show; set a key instead")
    host = parts._replace(netloc=parts.netloc.lower())
    return host.geturl().rstrip("/").removesuffix("/v1").rstrip("/")


Url = Annotated[str, AfterValidator(_base_url)]
Origin = Annotated[str, Field(pattern=r"^(\*|https?://[^/\s]+)$")]
Origins = Annotated[tuple[Origin, ...], NoDecode, BeforeValidator(split)]
Host = Annotated[str, Field(pattern=r"^(\*\.)?([a-z0-9._-]+|\[[0-9a-f:.]+\])$")]
Hosts = Annotated[tuple[Host, ...], NoDecode, BeforeValidator(split)]
LOCAL_HOSTS = ("localhost", "*.localhost", "127.0.0.1", "[::1]")
"""Names that no page can have for a server of its own."""


class Section(BaseModel):
    """Settings under one heading: of the reference, of `plato serve --help`, of `plato config`."""

    title: ClassVar[str]
