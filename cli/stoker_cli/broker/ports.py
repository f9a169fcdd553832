"""Free ports, and whether somebody listens on one."""

import contextlib
import random
import socket
from typing import Final

LOOPBACK: Final = "127.0.0.1"
_PORTS: Final = range(10_000, 32_768)  # Linux takes those for connections from above
_CHOICE: Final = random.SystemRandom()


def free_port() -> int:
    """A loopback TCP port that nobody listens on, and that no outgoing connection is given."""
    while True:
        port = _CHOICE.choice(_PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((LOOPBACK, port))
            return port


def is_listening(port: int) -> bool:
    """Whether somebody accepts connections on a loopback port."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((LOOPBACK, port)) == 0
