"""Every exception that Wheelpit raises on purpose.

    WheelpitError
     ├── ClientError                     the caller can fix it
     │    ├── ValidationError  (also a ValueError)   a parameter or a prompt
     │    └── NotFoundError    (also a LookupError)  a model name that is not served
     ├── ConfigError           (also a ValueError)   an engine argument
     ├── ModelLoadError                  a model folder that cannot be served as it is
     └── ServerError                     the caller cannot fix it
          ├── EngineStartError (also a RuntimeError) the engine did not come up
          ├── EngineDeadError            the engine is gone; every later call raises this, too
          ├── OverloadedError            more work than the limits allow; says when to try again
          └── EngineGenerateError        one request failed in an unforeseen way; the engine lives

`ValidationError` is a `ValueError` because callers of vLLM up to 0.32 catch that, and a
`ClientError` because callers of later releases catch theirs. HTTP statuses for all of these are
known only to `server/errors.py`.
"""

from __future__ import annotations


class WheelpitError(Exception):
    """Base of everything in this module."""


class ClientError(WheelpitError):
    """The request is at fault: the same call will fail again."""


class ValidationError(ClientError, ValueError):
    """A sampling parameter or prompt is outside its allowed range.

    `parameter` names the field, `value` is what was given; both also end the message.
    """

    def __init__(
        self, message: str, *, parameter: str | None = None, value: object | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.parameter = parameter
        self.value = value

    def __str__(self) -> str:
        if self.parameter is None:
            return self.message
        shown = repr(self.value)
        if len(shown) > 100:
            shown = shown[:97] + "..."
        return f"{self.message} (parameter={self.parameter}, value={shown})"

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild_validation_error, (self.message, self.parameter, self.value))


def _rebuild_validation_error(
    message: str, parameter: str | None, value: object | None
) -> ValidationError:
    return ValidationError(message, parameter=parameter, value=value)


class NotFoundError(ClientError, LookupError):
    """A name (of a model) that this engine does not know."""


class ConfigError(WheelpitError, ValueError):
    """An engine argument is out of range, unsupported or contradicts another."""


class ModelLoadError(WheelpitError):
    """The model folder is missing, incomplete, corrupt or of an unknown architecture."""


class ServerError(WheelpitError):
    """Something failed on our side: the same call may work later."""


class EngineStartError(ServerError, RuntimeError):
    """The engine process ended, or reported a failure, before it was ready."""


class EngineDeadError(ServerError):
    """The engine process is gone. `__cause__` has the reason when it is known."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(
            message
            or "EngineCore encountered an issue. See stack trace (above) for the root cause."
        )


class OverloadedError(ServerError):
    """A request was refused before it cost anything: there is more work than the limits allow.

    retry_after_s: when to try again, from 1 second to ten minutes. An estimate of the wait that a
    request at the end of the queue has now, or of when a tenant's rate allows more.
    reason: "queue_full", "queue_tokens", "tenant_queue", "tenant_rate", "deadline" (it would start
    too late to be of use), or "draining" (whatever comes is refused: this is the end).
    estimate_s: how long this request would have waited to start; None if that is not known.
    """

    def __init__(
        self,
        message: str,
        *,
        retry_after_s: float = 1.0,
        reason: str = "queue_full",
        estimate_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.reason = reason
        self.estimate_s = estimate_s

    def __reduce__(self) -> tuple[object, ...]:
        given = (str(self), self.retry_after_s, self.reason, self.estimate_s)
        return (_rebuild_overloaded_error, given)


def _rebuild_overloaded_error(
    message: str, retry_after_s: float, reason: str, estimate_s: float | None
) -> OverloadedError:
    return OverloadedError(
        message, retry_after_s=retry_after_s, reason=reason, estimate_s=estimate_s
    )


class EngineGenerateError(ServerError):
    """Generating failed in an unforeseen way for one request. `__cause__` has the reason."""
