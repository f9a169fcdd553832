"""Why a request was not answered."""

from typing import Final

NETWORK: Final = "NETWORK"
DEADLINE: Final = "DEADLINE"


class InferError(Exception):
    """The server refused a request or could not answer it.

    Attributes:
        code: a reason code (``QUEUE_FULL``, ``BAD_REQUEST``, …); ``NETWORK`` when there was no
            answer at all.
        status: the HTTP status, 0 without one.
        retry_after_s: when to try again, where the server said so.
    """

    def __init__(
        self, code: str, detail: str, *, status: int = 0, retry_after_s: float | None = None
    ) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
        self.status = status
        self.retry_after_s = retry_after_s


class BadRequestError(InferError):
    """What was sent does not fit the model."""


class UnknownModelError(InferError):
    """There is no such slot, or not this version of it."""


class UnavailableError(InferError):
    """Nothing serves now, or too many wait: try again later."""


class DeadlineError(InferError):
    """There was no answer in time."""


class EngineFailedError(InferError):
    """The engine failed on this request."""


def error_of(status: int, code: str, detail: str, retry_after_s: float | None) -> InferError:
    """The error for an HTTP status."""
    kind = _KINDS.get(status, EngineFailedError)
    return kind(code, detail, status=status, retry_after_s=retry_after_s)


_KINDS: dict[int, type[InferError]] = {
    400: BadRequestError,
    404: UnknownModelError,
    413: BadRequestError,
    429: UnavailableError,
    503: UnavailableError,
    504: DeadlineError,
}
