"""Headers of TensorRT plans, written from the layout in ``stoker_contract.plan_header``."""

import struct

TENSORRT = b"ftrt"
TENSORRT_RTX = b"vtrt"


def plan(
    body: bytes = b"",
    *,
    magic: bytes = TENSORRT,
    version: tuple[int, int, int, int] = (10, 3, 0, 26),
    capabilities: int = 0,
) -> bytes:
    """A plan with a true header and whatever body."""
    size = 64 + len(body)
    head = struct.pack("<4sIQQ4B4sI28x", magic, 0, 2, size, *version, magic, capabilities)
    return head + body
