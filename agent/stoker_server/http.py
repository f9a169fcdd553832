"""Open Inference Protocol v2 over HTTP: routes thin over the data plane.

``infer`` is a plain ASGI path, since it is the hot one; the rest is Starlette.
"""

import json
import re
from importlib.metadata import version
from typing import Any, Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from stoker_contract.codes import ReasonCode
from stoker_contract.hop import max_tensor_bytes
from stoker_contract.manifest import TensorSpec
from stoker_server import asgi, metrics, oip
from stoker_server.dataplane import DataPlane
from stoker_server.engine import Engine
from stoker_server.errors import ServeError
from stoker_server.slot import Slot

_INFER: Final = re.compile(r"/v2/models/([^/]{1,64})(?:/versions/([^/]{1,80}))?/infer")
_HEADER_LENGTH: Final = b"inference-header-content-length"
# A number takes at most so many characters in JSON for a byte of the tensor.
_JSON_PER_BYTE: Final = 32


class HttpApp:
    """The ASGI application."""

    def __init__(self, plane: DataPlane) -> None:
        self._plane = plane
        model = "/v2/models/{slot}"
        versioned = model + "/versions/{version}"
        self._rest = Starlette(
            routes=[
                Route("/v2", self._server),
                Route("/v2/health/live", self._live),
                Route("/v2/health/ready", self._ready),
                Route("/v2/models/stats", self._all_stats),
                Route(model, self._model),
                Route(versioned, self._model),
                Route(model + "/ready", self._model_ready),
                Route(versioned + "/ready", self._model_ready),
                Route(model + "/stats", self._stats),
                Route(versioned + "/stats", self._stats),
                Route("/metrics", self._metrics),
            ],
            exception_handlers={ServeError: _on_error, 404: _on_missing, 405: _on_missing},
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http" and scope["method"] == "POST":
            match = _INFER.fullmatch(scope["path"])
            if match is not None:
                await self._infer(scope, receive, send, match)
                return
        await self._rest(scope, receive, send)

    async def _infer(
        self, scope: Scope, receive: Receive, send: Send, match: re.Match[str]
    ) -> None:
        try:
            slot = self._plane.slot(match[1])
            encoding = asgi.header(scope, b"content-encoding")
            if encoding not in (None, b"", b"identity"):
                raise ServeError(ReasonCode.BAD_REQUEST, "send the request uncompressed")  # noqa: TRY301 - one place answers
            header_bytes = asgi.count_header(scope, _HEADER_LENGTH)
            limit = self._max_body_bytes(slot, header_bytes)
            within_s = self._plane.settings.receive_timeout_s
            body = await asgi.read_body(scope, receive, limit, within_s)
            decoded = oip.decode(match[1], match[2] or "", body, header_bytes)
            response = await slot.infer(decoded.request)
        except ServeError as error:
            if error.code is ReasonCode.REQUEST_TIMEOUT:
                self._plane.slow_clients["body"] += 1
            status, extra, body_object = asgi.error_parts(error)
            headers = [(b"content-type", b"application/json")]
            headers += [(name.encode(), value.encode()) for name, value in extra.items()]
            await asgi.answer(send, status, headers, [json.dumps(body_object).encode()])
            return
        parts, header_length = oip.encode(decoded, response)
        headers = [
            (b"stoker-digest", response.digest.encode()),
            (b"stoker-release", response.release.encode()),
        ]
        if header_length is None:
            headers.append((b"content-type", b"application/json"))
        else:
            headers.append((b"content-type", b"application/octet-stream"))
            headers.append((_HEADER_LENGTH, str(header_length).encode()))
        await asgi.answer(send, 200, headers, parts)

    def _max_body_bytes(self, slot: Slot, header_bytes: int | None) -> int:
        most = self._plane.settings.max_body_bytes
        if slot.active is None:
            return most
        tensors = sum(max_tensor_bytes(spec) for spec in slot.active.spec.io.inputs)
        if header_bytes is None:
            tensors *= _JSON_PER_BYTE
        return min(most, tensors + oip.MAX_HEADER_BYTES)

    async def _server(self, _: Request) -> Response:
        extensions = ["binary_tensor_data", "statistics"]
        return JSONResponse(
            {"name": "stoker", "version": version("stoker"), "extensions": extensions}
        )

    async def _live(self, _: Request) -> Response:
        return JSONResponse({"live": True})

    async def _ready(self, _: Request) -> Response:
        slots = self._plane.slots.values()
        ready = bool(slots) and all(slot.ready for slot in slots)
        return JSONResponse({"ready": ready}, status_code=200 if ready else 503)

    async def _model_ready(self, request: Request) -> Response:
        slot = self._plane.slot(request.path_params["slot"])
        body = {"name": slot.name, "ready": slot.ready}
        return JSONResponse(body, status_code=200 if slot.ready else 503)

    async def _model(self, request: Request) -> Response:
        slot = self._plane.slot(request.path_params["slot"])
        engine = _serving(slot)
        return JSONResponse(
            {
                "name": slot.name,
                "versions": [engine.spec.release.rpartition("/")[2]],
                "platform": f"stoker_{engine.spec.kind}",
                "inputs": [_tensor(spec) for spec in engine.spec.io.inputs],
                "outputs": [_tensor(spec) for spec in engine.spec.io.outputs],
            }
        )

    async def _stats(self, request: Request) -> Response:
        slot = self._plane.slot(request.path_params["slot"])
        return JSONResponse({"model_stats": metrics.model_stats(slot)})

    async def _all_stats(self, _: Request) -> Response:
        stats = [entry for s in self._plane.slots.values() for entry in metrics.model_stats(s)]
        return JSONResponse({"model_stats": stats})

    async def _metrics(self, _: Request) -> Response:
        return PlainTextResponse(
            metrics.prometheus(self._plane), media_type="text/plain; version=0.0.4"
        )


def _serving(slot: Slot) -> Engine:
    if slot.active is None or not slot.active.alive:
        raise ServeError(ReasonCode.NO_ENGINE, f"no engine serves {slot.name} now")
    return slot.active


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.dtype, "shape": list(spec.shape)}


async def _on_error(_: Request, error: Exception) -> Response:
    if not isinstance(error, ServeError):
        raise error
    status, headers, body = asgi.error_parts(error)
    return JSONResponse(body, status_code=status, headers=headers)


async def _on_missing(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 404)
    body = {"error": f"no {request.method} {request.url.path} here"}
    return JSONResponse(body, status_code=status)
