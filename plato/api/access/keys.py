"""API keys: each is of a tenant, and only its hash is kept.

A key is written as `TENANT=KEY`, on a line of a file or between commas in a setting. A tenant can
have several, so that a key can be replaced while runs of the old one are still found.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import secrets
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from plato.errors import SettingsError, file_problem

logger = logging.getLogger(__name__)

PREFIX = "sk-plato-"
"""Of keys made here, so that scanners for secrets find them."""
KEY_BYTES = 32
HASH = "sha256:"
MIN_KEY_CHARS = 16
"""Of a key in plain text. Hashes have no salt, so keys must be too long to be guessed."""
TENANT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}")
CHECK_S = 1.0
"""Time between two looks at a file."""

Keys = dict[str, str]
"""Tenants by the hashes of their keys."""


def new_key() -> str:
    """A key that nobody has."""
    return PREFIX + secrets.token_urlsafe(KEY_BYTES)


def hash_key(key: str) -> str:
    """The hash of a key, as it is written in files."""
    return HASH + hashlib.sha256(key.encode()).hexdigest()


def read_entry(entry: str, *, plain: bool) -> tuple[str, str]:
    """The hash and the tenant of `TENANT=KEY`; KEY is a hash, or the key itself if `plain`.

    Raises `SettingsError`, which does not repeat the key.
    """
    tenant, equals, key = (part.strip() for part in entry.partition("="))
    if not equals or not TENANT_NAME.fullmatch(tenant):
        raise SettingsError(
            "an API key is written TENANT=KEY, and a tenant's name consists of at most 128 "
            "letters, digits and ._@+-"
        )
    if re.fullmatch(rf"{HASH}[0-9a-f]{{64}}", key):
        return key, tenant
    if not plain or key.startswith(HASH):
        raise SettingsError(
            f"a key of {tenant} is not a hash, {HASH} and 64 hexadecimal digits; "
            "'plato key TENANT' makes a key and prints its line"
        )
    if len(key) < MIN_KEY_CHARS:
        raise SettingsError(f"a key of {tenant} has less than {MIN_KEY_CHARS} characters")
    return hash_key(key), tenant


def read_keys(entries: Iterable[str], *, plain: bool = False) -> Keys:
    """Keys written one an entry; empty entries and comments (`#`) are skipped.

    Raises `SettingsError`, which says where, also if two tenants have the same key.
    """
    keys: Keys = {}
    unit = "key" if plain else "line"
    for number, entry in enumerate(entries, start=1):
        if not entry.strip() or entry.lstrip().startswith("#"):
            continue
        try:
            hashed, tenant = read_entry(entry, plain=plain)
        except SettingsError as error:
            raise SettingsError(f"{unit} {number}: {error}") from error
        if keys.setdefault(hashed, tenant) != tenant:
            raise SettingsError(
                f"{unit} {number}: {tenant} and {keys[hashed]} have the same API key"
            )
    return keys


class KeyFile:
    """The keys in a file, which is read again when it changes."""

    def __init__(self, path: str, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises `SettingsError` if the file cannot be read, or is not valid."""
        self._path = Path(path)
        self._clock = clock
        self._checked = clock()
        try:
            self._seen = self._stamp()
            """Of the file as it was last read."""
            self._keys = self._read()
        except OSError as error:
            raise SettingsError(
                f"the API keys in {path} cannot be read ({file_problem(error)})"
            ) from error

    def keys(self) -> Keys:
        """The keys as of the last second; if the file has become invalid, those before."""
        if self._clock() >= self._checked + CHECK_S:
            self._checked = self._clock()
            try:
                stamp = self._stamp()
                if stamp != self._seen:
                    self._keys = self._read()
                    # Not before: a key may have been revoked, so a failed read is repeated.
                    self._seen = stamp
                    logger.info("API keys read again: %d", len(self._keys))
            except (OSError, SettingsError) as error:
                logger.error("API keys not read again, those before stay valid: %s", error)
        return self._keys

    def _stamp(self) -> tuple[int, int, int]:
        found = os.stat(self._path)
        return found.st_mtime_ns, found.st_size, found.st_ino

    def _read(self) -> Keys:
        try:
            keys = read_keys(self._path.read_text(encoding="utf-8").splitlines())
        except UnicodeDecodeError as error:
            raise SettingsError(f"the API keys in {self._path} are not UTF-8 text") from error
        except SettingsError as error:
            raise SettingsError(f"the API keys in {self._path}: {error}") from error
        if not keys:
            logger.warning(
                "%s has no API key; 'plato key TENANT' makes one and prints its line", self._path
            )
        return keys
