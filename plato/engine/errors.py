"""What an engine can refuse or run into."""


class EngineError(Exception):
    """An engine could not do what was asked; the message says what to change."""


class ModelNotSupportedError(EngineError):
    """The model has a part that this engine cannot compute correctly."""


class RequestRefusedError(EngineError):
    """A request that can never be served; `param` is the field to change, if it is one."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (str(self), self.param)


class EngineBusyError(EngineError):
    """The queue is full; the same request may be served later or elsewhere."""


class EngineClosedError(EngineError):
    """The engine is shutting down or its loop has died."""
