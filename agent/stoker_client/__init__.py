"""For applications on the device: numpy in, numpy out, over the server's Unix socket."""

from stoker_client.client import DEFAULT_SOCKET, AsyncClient, Client
from stoker_client.errors import (
    BadRequestError,
    DeadlineError,
    EngineFailedError,
    InferError,
    UnavailableError,
    UnknownModelError,
)
from stoker_client.messages import Result

__all__ = [
    "DEFAULT_SOCKET",
    "AsyncClient",
    "BadRequestError",
    "Client",
    "DeadlineError",
    "EngineFailedError",
    "InferError",
    "Result",
    "UnavailableError",
    "UnknownModelError",
]
