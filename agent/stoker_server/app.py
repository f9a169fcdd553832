"""The server process put together: sockets, data plane, control socket, HTTP, and a clean end."""

import asyncio
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial

import structlog
import uvicorn

from stoker_server import sockets
from stoker_server.connection import Connection
from stoker_server.control import ControlSocket
from stoker_server.dataplane import DataPlane
from stoker_server.http import HttpApp
from stoker_server.notify import keep_telling, notify
from stoker_server.settings import Settings
from stoker_server.slot import Slot

log = structlog.get_logger()

_INFERENCE_MODE = 0o660
_CONTROL_MODE = 0o600


class _HttpServer(uvicorn.Server):
    """uvicorn, without its signal handling: the process drains and ends with status 0."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def stop(self) -> None:
        self.should_exit = True


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then drain.

    Raises:
        AlreadyRunningError: another server uses the same run directory.
    """
    http_sockets, control_socket = _open(settings)
    plane = DataPlane(settings)
    http = _HttpServer(_http_config(plane, settings))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, http.stop)
    keeping = asyncio.create_task(plane.run(), name="dataplane")
    keeping.add_done_callback(lambda _: http.stop())  # a bug there must not pass in silence
    telling = asyncio.create_task(keep_telling(partial(_served, plane)), name="notify")
    control = await ControlSocket(plane).listen(control_socket)
    for listener in http_sockets:
        log.info("server.listening", address=_address(listener))
    notify(READY="1")
    try:
        await http.serve(http_sockets)
        notify(STOPPING="1")
        control.close()
    finally:
        telling.cancel()
        keeping.cancel()
        with suppress(asyncio.CancelledError):
            await keeping
        await plane.close()
        log.info("server.ended")


def _served(plane: DataPlane) -> str:
    """What is served, for ``systemctl status``."""
    slots = (f"{name}: {_told(slot)}" for name, slot in sorted(plane.slots.items()))
    return f"serving {', '.join(slots) or 'nothing'}"


def _told(slot: Slot) -> str:
    release = slot.active.spec.release if slot.active is not None and slot.ready else "nothing"
    return f"{release} (degraded)" if slot.trouble is not None else release


def _open(settings: Settings) -> tuple[list[socket.socket], socket.socket]:
    run_dir = settings.run_dir
    run_dir.mkdir(parents=True, exist_ok=True)
    sockets.lock(run_dir)
    listeners = sockets.passed()
    if not any(listener.family == socket.AF_UNIX for listener in listeners):
        path, group = run_dir / "inference.sock", settings.socket_group
        listeners.append(sockets.listen_unix(path, _INFERENCE_MODE, group))
    if settings.http is not None:
        listeners.append(sockets.listen_tcp(*settings.http))
    return listeners, sockets.listen_unix(run_dir / "control.sock", _CONTROL_MODE)


def _http_config(plane: DataPlane, settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        HttpApp(plane),
        interface="asgi3",
        http=partial(  # type: ignore[arg-type]  # uvicorn says type, and calls it
            Connection,
            headers_within_s=settings.receive_timeout_s,
            on_slow=lambda: plane.slow_clients.update(headers=1),
        ),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=max(1, int(settings.drain_timeout_s)),
    )


def _address(listener: socket.socket) -> str:
    name = listener.getsockname()
    return f"http://{name[0]}:{name[1]}" if isinstance(name, tuple) else f"unix:{name}"
