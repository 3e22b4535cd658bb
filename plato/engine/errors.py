"""What an engine can refuse or run into."""


class EngineError(Exception):
    """An engine could not do what was asked; the message says what to change."""


class ModelNotSupportedError(EngineError):
    """The model has a part that this engine cannot compute correctly."""


class RequestRefusedError(EngineError):
    """A request that can never be served: too long for the context or the KV budget."""


class EngineBusyError(EngineError):
    """The queue is full; the same request may be served later or elsewhere."""


class EngineClosedError(EngineError):
    """The engine is shutting down or its loop has died."""
