"""A build service on the loopback, and who talks to it."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from stoker_builder.workers.client import ServiceClient
from stoker_builder.workers.service import Desk, Tls, make_service
from stoker_builder.workers.store import JobStore

TOKEN = "a secret of this test"  # noqa: S105  it is one


@dataclass(frozen=True)
class Service:
    """Where it is, and what is behind it."""

    url: str
    store: JobStore

    def client(self, token: str = TOKEN, ca: Path | None = None) -> ServiceClient:
        """Somebody who talks to it."""
        return ServiceClient(self.url, token, ca)


@contextmanager
def running_service(
    store: JobStore, *, tls: Tls | None = None, on_change: Callable[[], None] = lambda: None
) -> Iterator[Service]:
    """The service, until the block ends."""
    server = make_service(Desk(store, TOKEN, on_change), "127.0.0.1", 0, tls)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        scheme = "http" if tls is None else "https"
        yield Service(f"{scheme}://127.0.0.1:{server.server_port}", store)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
