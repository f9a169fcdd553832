"""The certification samples as a file, for a worker that can answer them on the GPU."""

from pathlib import Path
from typing import Final

from stoker_builder.frames import write_frame
from stoker_builder.split import Part

MAX_BYTES: Final = 2**30


def write_samples(part: Part, path: Path, *, max_bytes: int = MAX_BYTES) -> Path:
    """Write the first samples of a part, as many as there is room for, and return the path."""
    with path.open("wb") as stream:
        for position in range(len(part)):
            write_frame(stream, part[position].inputs)
            if stream.tell() >= max_bytes:
                break
    return path
