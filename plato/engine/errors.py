"""Errors of engines."""


class EngineError(Exception):
    """Base of all engine errors; the message says what to change."""


class ModelNotSupportedError(EngineError):
    """The engine cannot compute a part of the model correctly."""


class RequestRefusedError(EngineError):
    """A request that can never be served; `param` names the field to change, if it is one."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (str(self), self.param)


class ContextExceededError(RequestRefusedError):
    """Prompt and output pass the context of the engine's model."""


class NotServedError(RequestRefusedError):
    """The server behind an engine lacks a path or a model, or the like.

    At start it tells what the server is not; a server that has decoded is not what it was.
    """


class ResumptionRefusedError(RequestRefusedError):
    """The engine cannot go on where an earlier attempt stopped; begin again."""


class OtherModelError(EngineError):
    """The request is for another model than the engine's; another replica may have it."""


class EngineBusyError(EngineError):
    """The queue is full; retry later or on another replica.

    `retry_after_s` is the time in which nothing is taken, in seconds; `None`: not known.
    """

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (str(self), self.retry_after_s)


class EngineUnreadyError(EngineBusyError):
    """The server behind an engine takes nothing for now, as while it loads its model."""


class EngineClosedError(EngineError):
    """The engine is shutting down or its loop has failed."""


class UpstreamError(EngineError):
    """The server behind an engine is away, or does not answer as it should.

    Another replica, with another server, may serve the request.
    """


class KeyRefusedError(UpstreamError):
    """The server behind an engine refuses the key that Plato asks it with."""


class NoScoresError(UpstreamError):
    """The server behind an engine returns no log probabilities of the tokens to score."""
