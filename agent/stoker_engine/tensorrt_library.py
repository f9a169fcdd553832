"""Finding TensorRT: which module, which version, and the one logger that a process may have.

Nothing here needs a GPU: importing the library and making a logger touch no driver.
"""

import importlib
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import cache
from importlib import metadata
from typing import Any, Final

from stoker_contract.codes import ReasonCode
from stoker_contract.target import Runtime
from stoker_engine.engine import EngineError

# The package is named for what it needs where it comes from a registry, and plainly on JetPack.
_MODULES: Final[Mapping[Runtime, tuple[str, ...]]] = {
    Runtime.TENSORRT: ("tensorrt", "tensorrt_bindings"),
    Runtime.TENSORRT_RTX: ("tensorrt_rtx", "tensorrt_rtx_bindings"),
}
_DISTRIBUTIONS: Final[Mapping[Runtime, tuple[str, ...]]] = {
    Runtime.TENSORRT: ("tensorrt", "tensorrt-cu13", "tensorrt-cu12", "tensorrt-bindings"),
    Runtime.TENSORRT_RTX: ("tensorrt-rtx", "tensorrt-rtx-cu13-bindings"),
}
EXTRAS: Final[Mapping[Runtime, str]] = {
    Runtime.TENSORRT: "tensorrt",
    Runtime.TENSORRT_RTX: "tensorrt-rtx",
}
Library = Any
"""A TensorRT module. The bindings have no types."""
Binding = Any
"""An object of one."""

# Said as information: why a plan is refused, and what of one was placed on an accelerator.
_WORTH_KEEPING: Final = ("created with", "does not conform", "[DlaLayer]")
_KEPT_MESSAGES: Final = 64
_MESSAGE_CHARACTERS: Final = 400

# What a message of the library means, first match first. It has no codes that say so.
_MEANINGS: Final[tuple[tuple[ReasonCode, tuple[str, ...]], ...]] = (
    (
        ReasonCode.UNSAFE_MODEL,
        ("magic tag", "magictag", "does not conform to the expected format", "plan is corrupt"),
    ),
    (
        ReasonCode.PLAN_MISMATCH,
        (
            "version tag does not match",
            "is not compatible with this version",
            "incompatible device",
            "created with tensorrt-rtx version",
            "please rebuild",
            "rebuild the engine",
        ),
    ),
    (
        ReasonCode.NO_GPU,
        (
            "cuda initialization failure",
            "driver version is insufficient",
            "no cuda-capable device",
            "error reading cuda gpu properties",
            "unable to determine gpu memory",
        ),
    ),
    (
        ReasonCode.MEMORY,
        (
            "out of memory",
            "outofmemory",
            "requested amount of gpu memory",
            "memory allocation failed",
        ),
    ),
)


def import_library(runtime: Runtime) -> Library:
    """The Python module of a TensorRT.

    Raises:
        EngineError: ``LOAD_ERROR``, it is not installed or can not be imported.
    """
    errors = []
    for name in _MODULES[runtime]:
        try:
            return importlib.import_module(name)
        except ImportError as error:  # noqa: PERF203 - the next name is the answer to it
            errors.append(str(error))
    detail = f"{runtime} can not be imported: {'; '.join(errors)}"
    raise EngineError(ReasonCode.LOAD_ERROR, f"{detail}; install stoker[{EXTRAS[runtime]}]")


def installed_version(runtime: Runtime) -> str | None:
    """The version that is installed, without importing it; None when nothing says so."""
    for name in _DISTRIBUTIONS[runtime]:
        with suppress(metadata.PackageNotFoundError):
            return metadata.version(name).partition(".post")[0]
    return None


class Messages:
    """What the library said lately: it explains itself nowhere else."""

    def __init__(self) -> None:
        # deque's appends are atomic: the library calls from threads of its own
        self._kept: deque[str] = deque(maxlen=_KEPT_MESSAGES)

    def add(self, text: str) -> None:
        """Keep a warning or an error."""
        self._kept.append(text[:_MESSAGE_CHARACTERS])

    def take(self) -> tuple[str, ...]:
        """What was said since the last time, oldest first."""
        taken = []
        while self._kept:
            taken.append(self._kept.popleft())
        return tuple(taken)


def meaning(messages: Iterable[str], otherwise: ReasonCode) -> ReasonCode:
    """What messages of the library mean; ``otherwise`` when they say nothing that is known."""
    text = " ".join(messages).lower()
    for code, signs in _MEANINGS:
        if any(sign in text for sign in signs):
            return code
    return otherwise


@cache
def logger_of(library: Library) -> tuple[Binding, Messages]:
    """The logger of this process for a TensorRT module, and what it hears.

    The library keeps the first logger that it is given for ever, so there is one. Its own writes
    to standard output, which belongs to others.
    """
    messages = Messages()
    severity = library.ILogger.Severity
    worth_keeping = (severity.INTERNAL_ERROR, severity.ERROR, severity.WARNING)

    class _Logger(library.ILogger):  # type: ignore[misc]  # the binding has no types
        def __init__(self) -> None:
            # not super(): the binding refuses a class whose own __init__ was not called
            library.ILogger.__init__(self)

        def log(self, level: Binding, text: str) -> None:
            """Called by the library, from any thread."""
            if level in worth_keeping or any(sign in text for sign in _WORTH_KEEPING):
                messages.add(text)

    return _Logger(), messages


def profiler_of(library: Library, heard: Callable[[str, float], None]) -> Binding:
    """A profiler for contexts, which says a layer's name and its milliseconds."""

    class _Profiler(library.IProfiler):  # type: ignore[misc]  # the binding has no types
        def __init__(self) -> None:
            library.IProfiler.__init__(self)  # not super(), as above

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            """Called by the library for each layer, before a run is handed back."""
            heard(layer_name, ms)

    return _Profiler()
