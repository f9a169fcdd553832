"""What a child process of the builder does all day: answer samples, and time itself.

The other side is :class:`stoker_builder.children.ModelChild`. ``argv[1]`` names a file with one
JSON line of settings, the timed sample and more samples, as frames. When the model is loaded,
``ready`` goes out. Then ``time`` is answered with the nanoseconds that the timed sample took, and
``answer`` and a frame of inputs with a frame of outputs.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
from numpy.typing import NDArray

from stoker_builder.frames import read_frame, write_frame

Arrays = Mapping[str, NDArray[np.generic]]

ANSWER: Final = b"answer\n"
TIME: Final = b"time\n"


@contextmanager
def opened_setup() -> Iterator[tuple[dict[str, Any], Iterator[Arrays]]]:
    """The settings that this process was given, and its samples, the timed one first."""
    with Path(sys.argv[1]).open("rb") as stream:
        yield json.loads(stream.readline()), _frames(stream)


def answering_stream() -> IO[bytes]:
    """Where answers go; whatever a library prints goes to stderr from here on."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return answers


def serve(
    answers: IO[bytes], answer: Callable[[Arrays], Arrays], run_timed: Callable[[], object]
) -> None:
    """Say that all is ready; then answer or time for each line until the requests end."""
    requests = sys.stdin.buffer
    _say(answers, b"ready\n")
    while command := requests.readline():
        if command == ANSWER:
            inputs = read_frame(requests)
            if inputs is None:
                return
            write_frame(answers, answer(inputs))
        elif command == TIME:
            started = time.perf_counter_ns()
            run_timed()
            _say(answers, b"%d\n" % (time.perf_counter_ns() - started))


def _frames(stream: IO[bytes]) -> Iterator[Arrays]:
    while (frame := read_frame(stream)) is not None:
        yield frame


def _say(answers: IO[bytes], line: bytes) -> None:
    answers.write(line)
    answers.flush()
