"""A model behind the Open Inference Protocol, over TCP or a Unix socket."""

import json
import socket
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit

from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.models.source import Inputs
from stoker_client.client import Client
from stoker_client.errors import InferError
from stoker_client.messages import parse_head
from stoker_contract.errors import ContractError
from stoker_contract.manifest import EngineIO

_TIMEOUT_S: Final = 30.0
_CHUNK: Final = 64 * 1024
_MAX_ANSWER: Final = 1024 * 1024
_OK: Final = 200


class Endpoint:
    """One connection to one model of a server."""

    def __init__(self, where: str, model: str) -> None:
        self._where = where
        self._model = model
        self._client = (
            _TcpClient(model, where)
            if where.startswith("http://")
            else Client(model, socket=where.removeprefix("unix:"), timeout_s=_TIMEOUT_S)
        )

    def io(self) -> EngineIO:
        """What the model says it takes and gives.

        Raises:
            BuildError: ``MEASURE``, nobody answers, or not with this.
        """
        told = _get(self._connect(), f"/v2/models/{self._model}", self._where)
        try:
            return EngineIO.parse_object(
                {side: [_spec(entry) for entry in told[side]] for side in ("inputs", "outputs")}
            )
        except (KeyError, TypeError, ContractError) as error:
            detail = f"{self._where} does not describe {self._model} as the protocol asks: {error}"
            hint = "give inputs with --inputs FILE.npz"
            raise BuildError(BuildCode.MEASURE, detail[:1000], hint) from None

    def caller(self, inputs: Inputs) -> Callable[[], object]:
        """What asks once.

        Raises:
            InferError: when called and not answered.
        """
        return lambda: self._client.infer(inputs)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _connect(self) -> socket.socket:
        try:
            return self._client.connect()
        except OSError as error:
            detail = f"{self._where}: {error.strerror or error}"
            raise BuildError(BuildCode.MEASURE, detail, "is the server running there?") from None


class _TcpClient(Client):
    """The client for devices, over TCP."""

    def __init__(self, slot: str, url: str) -> None:
        super().__init__(slot, socket=url, timeout_s=_TIMEOUT_S)
        parts = urlsplit(url)
        try:
            self._address = (parts.hostname or "", parts.port or 80)
        except ValueError:
            self._address = ("", 0)
        if not all(self._address) or parts.path not in {"", "/"}:
            detail = f"{url} is not the address of a server"
            raise BuildError(BuildCode.BAD_REQUEST, detail, "write http://HOST:PORT")

    def connect(self) -> socket.socket:
        """Open a connection."""
        connection = socket.create_connection(self._address, timeout=_TIMEOUT_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection


def _spec(entry: dict[str, Any]) -> dict[str, Any]:
    return {"name": entry["name"], "dtype": entry["datatype"], "shape": entry["shape"]}


def _get(connection: socket.socket, path: str, where: str) -> dict[str, Any]:
    request = f"GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
    try:
        with connection:
            connection.sendall(request.encode())
            data = b""
            while len(data) < _MAX_ANSWER and (chunk := connection.recv(_CHUNK)):
                data += chunk
        head, _, body = data.partition(b"\r\n\r\n")
        status, _ = parse_head(head)
        told = json.loads(body)
    except (OSError, InferError, ValueError) as error:
        detail = f"{where} does not speak the Open Inference Protocol: {error}"
        raise BuildError(BuildCode.MEASURE, detail, "is it the right address?") from None
    if status != _OK or not isinstance(told, dict):
        detail = f"{where} answers {status} for {path}"
        raise BuildError(BuildCode.MEASURE, detail, "see which models it serves: /v2/models/…")
    return told
