"""The build service as a program: the store, the broker and the socket put together."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.workers.dispatch import Dispatcher
from stoker_builder.workers.queues import CeleryWaker, make_app
from stoker_builder.workers.service import Desk, Tls, make_service
from stoker_builder.workers.store import LEASE_S, JobStore

LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})


@dataclass(frozen=True, slots=True)
class ServiceSettings:
    """What the service is started with.

    Attributes:
        folder: jobs, blobs and results; it grows.
        broker: its URL.
        port: 0 takes a free one.
        tls: None only on the loopback: the token is sent.
    """

    folder: Path
    broker: str
    token: str
    host: str
    port: int
    tls: Tls | None = None
    lease_s: float = LEASE_S

    def check(self) -> None:
        """Refuse what would show the token to others, and a broker that is none.

        Raises:
            BuildError: ``BUILD_SERVICE``.
        """
        if self.tls is None and self.host not in LOOPBACK:
            detail = f"without TLS, whoever is on the way to {self.host} sees the token"
            hint = "give --certificate and --key, or listen on 127.0.0.1"
            raise BuildError(BuildCode.BUILD_SERVICE, detail, hint)
        make_app(self.broker)


def serve_builds(
    settings: ServiceSettings, stop: threading.Event, on_ready: Callable[[str], object]
) -> None:
    """Serve until somebody says stop.

    Args:
        settings: checked.
        stop: ends it.
        on_ready: is told the URL.

    Raises:
        BuildError: ``BUILD_SERVICE``, as ``settings.check``.
        OSError: the address is taken, or the certificate can not be used.
    """
    settings.check()
    settings.folder.mkdir(parents=True, exist_ok=True)
    store = JobStore(settings.folder, time.monotonic, lease_s=settings.lease_s)
    dispatcher = Dispatcher(store, CeleryWaker(make_app(settings.broker)))
    desk = Desk(store, settings.token, dispatcher.nudge)
    try:
        server = make_service(desk, settings.host, settings.port, settings.tls)
        thread = threading.Thread(target=server.serve_forever, name="builds.http", daemon=True)
        thread.start()
        dispatcher.start()
        scheme = "http" if settings.tls is None else "https"
        on_ready(f"{scheme}://{settings.host}:{server.server_port}")
        stop.wait()
        dispatcher.stop()
        server.shutdown()
        server.server_close()
    finally:
        store.close()
