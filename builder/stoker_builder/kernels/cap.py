"""ONNX Runtime as on an older processor, on this one.

OpenVINO and PyTorch can be told by an environment variable which instructions to use. ONNX
Runtime asks the processor itself, so a *copy* of its package gets each ``cpuid`` instruction
replaced by one that traps, and a preloaded library answers the trap (``mask_cpuid.c``). Its
kernels for that processor then run at full speed, where emulation takes a hundred times as long.
They still run on this machine's core: ratios say something about an older processor,
milliseconds do not. The copy stays on the build machine; devices get the package as published.
"""

import contextlib
import ctypes
import hashlib
import importlib.util
import os
import platform
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final

from stoker_builder.cache import default_folder

_SOURCE: Final = Path(__file__).with_name("mask_cpuid.c")
_LIBRARY: Final = "mask_cpuid.so"
LEVEL: Final = "STOKER_CPU_CAP"
_CPUID, _UD2 = b"\x0f\xa2", b"\x0f\x0b"
_PROGRAM_HEADERS_AT: Final = 32  # of the ELF header: offset of the table, then more, then its size
_LOAD: Final = 1


class CapError(Exception):
    """The cap can not be put on; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class CappedRuntime:
    """A copy of ONNX Runtime that believes what it is told about the processor.

    Attributes:
        packages: has to come first on the module path.
    """

    packages: Path

    def environment(self, level: str) -> dict[str, str]:
        """What a process needs beside the module path.

        Args:
            level: one of oneDNN's: ``AVX2``, ``AVX512_CORE`` for a processor without VNNI,
                ``AVX512_CORE_VNNI`` for one that has that, ``AVX512_CORE_BF16`` for one that has
                both; neither has AMX.
        """
        return {"LD_PRELOAD": str(self.packages / _LIBRARY), LEVEL: level}


def capped_runtime(folder: Path | None = None) -> CappedRuntime:
    """Make the copy, once for each version of ONNX Runtime.

    Args:
        folder: where; beside the results of builds when absent.

    Raises:
        CapError: a program is missing, or ONNX Runtime is not built as expected.
    """
    missing = [name for name in ("gcc", "objdump") if shutil.which(name) is None]
    if platform.machine() != "x86_64" or missing:
        msg = f"no {' and no '.join(missing)}: apt install gcc libc6-dev binutils"
        raise CapError(msg if missing else "only x86-64 can be capped")
    try:
        return _made(folder or default_folder().with_name("runtimes"))
    except OSError as error:
        msg = f"no copy of ONNX Runtime could be made: {error}"
        raise CapError(msg) from None


def check_capped() -> None:
    """Make sure that this process's ONNX Runtime was told a lie.

    Raises:
        CapError: it was not.
    """
    import onnxruntime  # noqa: PLC0415, F401  it asks when it is imported

    library = ctypes.CDLL(os.environ.get("LD_PRELOAD") or None)
    counted = getattr(library, "mask_cpuid_answered", None)
    if counted is None or counted() == 0:
        msg = "ONNX Runtime never asked for the processor's features: the cap is not in force"
        raise CapError(msg)


def _made(folder: Path) -> CappedRuntime:
    version = metadata.version("onnxruntime")
    made_of = _SOURCE.read_bytes() + str(_runtime().stat().st_size).encode()
    recipe = hashlib.sha256(made_of).hexdigest()
    packages = folder / f"onnxruntime-{version}-capped-{recipe[:12]}"
    if not (packages / _LIBRARY).is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".new-", dir=folder) as unfinished:
            made = Path(unfinished) / "packages"
            _patched_copy(made)
            _compile(made / _LIBRARY)
            with contextlib.suppress(OSError):  # another build was faster
                made.rename(packages)
    return CappedRuntime(packages)


def _runtime() -> Path:
    """The compiled part of the installed package."""
    spec = importlib.util.find_spec("onnxruntime")
    if spec is not None and spec.origin is not None:
        for found in Path(spec.origin).parent.glob("capi/*pybind11_state*.so"):
            return found
    msg = "onnxruntime is not installed"
    raise CapError(msg)


def _patched_copy(folder: Path) -> None:
    # another process may be writing what Python compiles just now
    compiled = shutil.ignore_patterns("__pycache__")
    copy = shutil.copytree(_runtime().parents[1], folder / "onnxruntime", ignore=compiled)
    changed = sum(_patch(binary) for binary in sorted(copy.glob("capi/*.so*")))
    if changed == 0:
        msg = "no cpuid instruction was found in ONNX Runtime"
        raise CapError(msg)


def _patch(binary: Path) -> int:
    """Replace each ``cpuid`` that a disassembler finds; return how many there were."""
    code = bytearray(binary.read_bytes())
    places = list(_cpuid_places(binary, bytes(code)))
    for place in places:
        if code[place : place + 2] != _CPUID:
            msg = f"{binary.name} has no cpuid at {place:#x}, where it should be"
            raise CapError(msg)
        code[place : place + 2] = _UD2
    if places:
        binary.write_bytes(code)
    return len(places)


def _cpuid_places(binary: Path, code: bytes) -> Iterator[int]:
    command = ["objdump", "--disassemble", "--no-show-raw-insn", str(binary)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        assert process.stdout is not None  # noqa: S101 - opened as a pipe
        addresses = [
            int(line.partition(":")[0], 16)
            for line in process.stdout
            if line.rstrip().endswith("cpuid")
        ]
    for address in addresses:
        for offset, start, size in _loaded_segments(code):
            if start <= address < start + size:
                yield offset + address - start


def _loaded_segments(code: bytes) -> Iterator[tuple[int, int, int]]:
    """File offset, address and size in the file of what is loaded from a 64-bit ELF file."""
    (table,) = struct.unpack_from("<Q", code, _PROGRAM_HEADERS_AT)
    entry_size, entries = struct.unpack_from("<HH", code, 54)
    for index in range(entries):
        kind, _, offset, address, _, size = struct.unpack_from(
            "<IIQQQQ", code, table + index * entry_size
        )
        if kind == _LOAD:
            yield offset, address, size


def _compile(library: Path) -> None:
    command = ["gcc", "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o", str(library)]
    done = subprocess.run(  # noqa: S603 - our own source
        [*command, str(_SOURCE)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        msg = f"gcc could not compile {_SOURCE.name}: {done.stderr.strip()[-400:]}"
        raise CapError(msg)
