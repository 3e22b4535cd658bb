"""Prompts as chains of immutable segments.

Each segment is tokenised once, on its own. Equal segments therefore give equal tokens, and two
prompts share a prefix exactly when they share leading segments.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from operator import attrgetter

HASH_BYTES = 16
ROOT_HASH = bytes(HASH_BYTES)
"""Parent hash of the first segment of a prompt that is bound to no model."""


def root_hash(fingerprint: str) -> bytes:
    """Parent hash of the first segment of every prompt for the model with this fingerprint.

    So equal token ids for two models never have the same name, in no index and no KV event.
    """
    if not fingerprint:
        return ROOT_HASH
    return hashlib.blake2b(fingerprint.encode(), digest_size=HASH_BYTES).digest()


def chain_hash(parent: bytes, tokens: Iterable[int], tenant: str | None = None) -> bytes:
    """Hash of the prefix that continues the prefix with hash `parent` by `tokens`.

    blake2b over the parent's hash, the tenant at the first private segment, and the token ids as
    32-bit little-endian integers.
    """
    digest = hashlib.blake2b(parent, digest_size=HASH_BYTES)
    if tenant is not None:
        # The length prefix separates the tenant from the tokens.
        name = tenant.encode()
        digest.update(b"tenant" + len(name).to_bytes(4, "little") + name)
    digest.update(array("i", tokens).tobytes())
    return digest.digest()


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of a prompt, tokenised on its own.

    `public` segments contain no user text and are shared between tenants. They can only lead a
    prompt: everything after the first private segment is private.
    """

    tokens: tuple[int, ...]
    public: bool = False
    role: str = ""
    """Of the chat message (`system`, `user` or `assistant`) whose content this is; empty: markup of
    the chat template, or text outside of any message."""


@dataclass(frozen=True)
class Prompt:
    """Segments in order, the tenant that owns the private ones, and the model that they are for."""

    segments: tuple[Segment, ...]
    tenant: str = ""
    fingerprint: str = ""
    """Of the model whose token ids these are; empty: any engine accepts it."""

    def __len__(self) -> int:
        return len(self.tokens)

    @cached_property
    def tokens(self) -> tuple[int, ...]:
        """All token ids in order."""
        return tuple(token for segment in self.segments for token in segment.tokens)

    @property
    def messages(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """(role, token ids of the content) of each chat message, without the template's markup.

        If the last one is the assistant's, its text is to be continued.
        """
        return tuple(
            (role, tuple(token for segment in segments for token in segment.tokens))
            for role, segments in groupby(self.segments, key=attrgetter("role"))
            if role
        )

    @cached_property
    def public_tokens(self) -> int:
        """Number of leading tokens that all tenants share."""
        count = 0
        for segment in self.segments:
            if not segment.public:
                break
            count += len(segment.tokens)
        return count

    @cached_property
    def hashes(self) -> tuple[bytes, ...]:
        """One chained hash per segment; the last one identifies the whole prompt.

        The tenant enters the chain at the first private segment, so private prefixes of two
        tenants never have the same hash.
        """
        hashes: list[bytes] = []
        parent, private = root_hash(self.fingerprint), False
        for segment in self.segments:
            enters = not private and not segment.public
            private = private or enters
            parent = chain_hash(parent, segment.tokens, self.tenant if enters else None)
            hashes.append(parent)
        return tuple(hashes)

    def extended(self, *segments: Segment) -> Prompt:
        """This prompt with `segments` appended."""
        return Prompt((*self.segments, *segments), self.tenant, self.fingerprint)
