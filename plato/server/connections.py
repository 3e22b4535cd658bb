"""Connections of the server in one process: none is kept open by a client that does nothing."""

from __future__ import annotations

import asyncio
import resource
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

if TYPE_CHECKING:
    from uvicorn.protocols.http.h11_impl import H11Protocol as HTTPProtocol
else:
    HTTPProtocol = AutoHTTPProtocol

HEADERS_DEADLINE_S = 10.0
MAX_HEADER_BYTES = 64 << 10


def bounded_protocol(write_deadline_s: float) -> type[HTTPProtocol]:
    """Uvicorn's protocol, which also closes connections whose client is too slow.

    The headers of a request must be complete within `HEADERS_DEADLINE_S`, counted from the
    connection or from the first byte after the last response, and have at most `MAX_HEADER_BYTES`.
    A response must be read within `write_deadline_s` whenever so much of it waits that nothing more
    is sent. Bodies are bounded by `plato.api.questions.body`.
    """

    class BoundedProtocol(HTTPProtocol):
        _timer: asyncio.TimerHandle | None = None
        """Closes the connection; set while headers are received."""
        _write_timer: asyncio.TimerHandle | None = None
        """Closes the connection; set while nothing more can be written."""
        _header_bytes = 0
        """Received since the last request."""

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._timer = self.loop.call_later(HEADERS_DEADLINE_S, self._close)

        def data_received(self, data: bytes) -> None:
            before = self.cycle
            super().data_received(data)
            if self.cycle is not before:
                self._stop(self._timer)
                self._timer, self._header_bytes = None, 0
            elif before is None or before.response_complete:
                # The rest of a body that was refused is received: a client that cannot send it
                # does not see why.
                if before is None or not before.more_body:
                    self._header_bytes += len(data)
                if self._header_bytes > MAX_HEADER_BYTES:
                    self._close()
                elif self._timer is None:
                    self._timer = self.loop.call_later(HEADERS_DEADLINE_S, self._close)

        def pause_writing(self) -> None:
            super().pause_writing()
            self._write_timer = self.loop.call_later(write_deadline_s, self.transport.abort)

        def resume_writing(self) -> None:
            self._stop(self._write_timer)
            super().resume_writing()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop(self._timer)
            self._stop(self._write_timer)
            super().connection_lost(exc)

        def _close(self) -> None:
            self.transport.close()

        @staticmethod
        def _stop(timer: asyncio.TimerHandle | None) -> None:
            if timer is not None:
                timer.cancel()

    return BoundedProtocol


def raise_file_limit() -> None:
    """Allow as many open connections as the system does: the default is often 1,024."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Some systems name a hard limit that they do not grant.
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
