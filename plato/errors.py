"""Errors of the layers above the engine.

Each carries what an HTTP response needs: a status, OpenAI's `type`, `code` and `param`, and a
message that says what to change.
"""

from __future__ import annotations


class PlatoError(Exception):
    """Something failed in the server: the base class of all errors that clients receive."""

    status = 500
    type = "server_error"
    code: str | None = "internal_error"

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        if code is not None:
            self.code = code
        self.retry_after_s = retry_after_s

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions with keyword arguments do not survive pickling otherwise.
        return _rebuild, (type(self), self.message, self.param, self.code, self.retry_after_s)


def file_problem(error: OSError | UnicodeError) -> str:
    """Why a file of text cannot be read, for a message that names the file itself."""
    if isinstance(error, UnicodeError):
        return "it is not UTF-8 text"
    return error.strerror or str(error)


def _rebuild(
    kind: type[PlatoError],
    message: str,
    param: str | None,
    code: str | None,
    retry_after_s: float | None,
) -> PlatoError:
    return kind(message, param=param, code=code, retry_after_s=retry_after_s)


class InvalidRequestError(PlatoError):
    """The request is invalid; the message says what to change."""

    status = 400
    type = "invalid_request_error"
    code = "invalid_value"


class AuthenticationError(InvalidRequestError):
    """The request has no valid API key."""

    status = 401
    code = "invalid_api_key"


class HostError(InvalidRequestError):
    """The request calls the server by a name that it does not have."""

    status = 403
    code = "host_not_allowed"


class BodyTooLargeError(InvalidRequestError):
    """The body of the request is too large."""

    status = 413
    code = "request_too_large"


class BodyTimeoutError(InvalidRequestError):
    """The body of the request did not arrive in time."""

    status = 408
    code = "request_timeout"


class MediaTypeError(InvalidRequestError):
    """The body of the request is not declared as plain JSON."""

    status = 415
    code = "unsupported_media_type"


class InvalidPlanError(InvalidRequestError):
    """The plan is not a valid graph: an unknown, forward or repeated dependency, for example."""

    code = "invalid_plan"


class ContextLengthError(InvalidRequestError):
    """The question leaves no room for an answer in the model's context."""

    code = "context_length_exceeded"


class RunNotFoundError(InvalidRequestError):
    """The run does not exist, or belongs to another tenant."""

    status = 404
    code = "run_not_found"


class ModelNotFoundError(InvalidRequestError):
    """The request names a model that this deployment does not serve."""

    status = 404
    code = "model_not_found"


class OverloadedError(PlatoError):
    """More runs than the settings allow."""

    status = 429
    type = "rate_limit_error"
    code = "overloaded"


class RateLimitError(OverloadedError):
    """More than one tenant may have."""

    code = "rate_limit_exceeded"


class StorageQuotaError(RateLimitError):
    """A tenant's runs in progress fill its share of the context store."""

    code = "storage_quota_exceeded"

    @classmethod
    def of(cls, quota_bytes: int) -> StorageQuotaError:
        """The error of a tenant with this quota."""
        return cls(
            "the runs in progress of this API key fill its share of the store, "
            f"{quota_bytes / 2**20:g} MiB; wait for one of them to end, or ask with "
            "/v1/chat/completions, which needs no store",
            retry_after_s=5.0,
        )


class UnavailableError(PlatoError):
    """A component cannot be reached at the moment."""

    status = 503
    type = "server_error"
    code = "unavailable"


class BadGatewayError(UnavailableError):
    """A server that answers in place of this one failed in its answer."""

    status = 502
    code = "bad_gateway"


class SlowConsumerError(PlatoError):
    """A follower of a run does not read its events."""

    status = 503
    code = "slow_consumer"


class DeadlineError(PlatoError):
    """A run or a node exceeded its deadline."""

    status = 504
    type = "server_error"
    code = "deadline_exceeded"


class RunCancelledError(PlatoError):
    """The run was cancelled."""

    status = 499  # What proxies log when a client closes its request.
    type = "cancelled"
    code = "cancelled"


class UnplannedError(PlatoError):
    """A run that is only wanted with a plan (`RunRequest.planned_only`) has none."""

    code = "unplanned"


class NodeFailedError(PlatoError):
    """A node could not be decoded."""

    code = "node_failed"


class ModelError(PlatoError):
    """The model is missing, broken or not supported."""

    code = "model_error"


class SettingsError(PlatoError):
    """The settings contradict each other or the machine."""

    code = "settings_error"
