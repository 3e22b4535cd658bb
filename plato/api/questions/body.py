"""Reading the bodies of requests: bounded in size and time, and in memory for all of them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from starlette.requests import Request

from plato.errors import BodyTimeoutError, BodyTooLargeError, MediaTypeError
from plato.tasks import expire

JSON = "application/json"
MAX_BODY_BYTES = 4 << 20
MIN_BYTES_PER_S = 64 << 10
"""Every byte extends the deadline of its body by its time at this rate."""
MAX_UPLOADS = 1024
MAX_UPLOAD_BYTES = 256 << 20
"""Of all bodies that are being received."""


@dataclass(eq=False, slots=True)
class _Upload:
    timer: asyncio.Timeout
    size: int = 0


class BodyReader:
    """Reads bodies; a client that sends none, or sends it slowly, costs others nothing.

    Bodies that are being received take no slot of the requests in progress. If there are too many,
    or they are too large together, the one that began first is given up: it is the slowest.
    """

    def __init__(
        self,
        deadline_s: float,
        max_uploads: int = MAX_UPLOADS,
        max_upload_bytes: int = MAX_UPLOAD_BYTES,
    ) -> None:
        """`deadline_s` is the time for a body, in addition to that of its size."""
        self._deadline_s = deadline_s
        self._max_uploads = max_uploads
        self._max_upload_bytes = max_upload_bytes
        self._uploads: dict[_Upload, None] = {}
        """Bodies that are being received, oldest first; at most `max_uploads`."""
        self._bytes = 0
        """Their size so far, in all."""

    async def read(self, request: Request) -> bytes:
        """The body.

        Raises `BodyTimeoutError`, `BodyTooLargeError` and `MediaTypeError`, and `ClientDisconnect`
        if the client leaves.
        """
        # Browsers let a page of another site send a body without a type.
        undeclared = "" if "origin" in request.headers else JSON
        kind = request.headers.get("content-type", undeclared).partition(";")[0].strip().lower()
        if kind != JSON and not kind.endswith("+json"):
            raise MediaTypeError(
                f"the body is declared as {kind[:100]!r}; send Content-Type: {JSON}"
            )
        encoding = request.headers.get("content-encoding", "identity")
        if encoding.strip().lower() != "identity":
            raise MediaTypeError(
                f"the body is declared as encoded ({encoding[:100]!r}); send it as it is, without "
                "Content-Encoding"
            )
        declared = request.headers.get("content-length", "")
        # What is announced as too large is not read.
        if len(declared) < 20 and declared.isascii() and declared.isdecimal():
            _check_size(int(declared))
        try:
            async with asyncio.timeout(self._deadline_s) as timer:
                return await self._receive(request, _Upload(timer))
        except TimeoutError as error:
            if not timer.expired():
                raise
            raise BodyTimeoutError(
                "the body was not received in time; send all of it at once, at "
                f"{MIN_BYTES_PER_S >> 10} KiB/s or more"
            ) from error

    async def _receive(self, request: Request, upload: _Upload) -> bytes:
        deadline = asyncio.get_running_loop().time() + self._deadline_s
        body = bytearray()
        self._uploads[upload] = None
        try:
            self._make_room()
            async for piece in request.stream():
                body += piece
                _check_size(len(body))
                # Not if it was given up while this piece came.
                if upload in self._uploads:
                    upload.size += len(piece)
                    self._bytes += len(piece)
                    upload.timer.reschedule(deadline + len(body) / MIN_BYTES_PER_S)
                    self._make_room()
        finally:
            self._forget(upload)
        return bytes(body)

    def _make_room(self) -> None:
        while len(self._uploads) > self._max_uploads or self._bytes > self._max_upload_bytes:
            oldest = next(iter(self._uploads))
            self._forget(oldest)
            expire(oldest.timer)

    def _forget(self, upload: _Upload) -> None:
        if upload in self._uploads:
            del self._uploads[upload]
            self._bytes -= upload.size


def _check_size(size: int) -> None:
    if size > MAX_BODY_BYTES:
        raise BodyTooLargeError(
            f"the body is larger than {MAX_BODY_BYTES >> 20} MiB; send a shorter conversation"
        )
