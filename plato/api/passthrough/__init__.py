"""Requests that an upstream answers itself, byte for byte: whatever Plato has no plan for.

`decision` tells which they are, `outgoing` what of them is changed, `upstreams` which server gets
them, and `responder` passes the answer back.
"""

from plato.api.passthrough.responder import AbsentPathError, PassThrough
from plato.api.passthrough.upstreams import Upstreams

__all__ = ["AbsentPathError", "PassThrough", "Upstreams"]
