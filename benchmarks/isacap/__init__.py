"""Measuring equipment, never shipped: this machine as if it had AVX2 and nothing newer.

OpenVINO and PyTorch can be told by an environment variable. ONNX Runtime asks the processor
itself, so a *copy* of its package gets each ``cpuid`` instruction replaced by one that traps,
and a preloaded library answers the trap (``mask_cpuid.c``). Its AVX2 kernels then run at full
speed. They still run on this machine's core: ratios say something about a processor without
VNNI, milliseconds do not.
"""

import ctypes
import importlib.util
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Final

_SOURCE: Final = Path(__file__).with_name("mask_cpuid.c")
_LIBRARY: Final = "mask_cpuid.so"
_CPUID, _UD2 = b"\x0f\xa2", b"\x0f\x0b"
_PROGRAM_HEADERS_AT: Final = 32  # of the ELF header: offset of the table, then more, then its size
_LOAD: Final = 1


class CapError(Exception):
    """The cap can not be put on; the message says what is missing."""


def avx2_environment(folder: Path) -> Mapping[str, str]:
    """Make what is needed below ``folder``, once, and return the environment of a capped process.

    Raises:
        CapError: a program is missing, or ONNX Runtime is not built as expected.
    """
    missing = [name for name in ("gcc", "objdump") if shutil.which(name) is None]
    if missing:
        msg = f"no {' and no '.join(missing)}: apt install gcc binutils"
        raise CapError(msg)
    packages = folder / f"onnxruntime-{metadata.version('onnxruntime')}"
    library = packages / _LIBRARY
    if not library.is_file():
        unfinished = packages.with_suffix(".new")
        shutil.rmtree(unfinished, ignore_errors=True)
        _patched_copy(unfinished)
        _compile(unfinished / _LIBRARY)
        shutil.rmtree(packages, ignore_errors=True)
        unfinished.rename(packages)
    inherited = os.environ.get("PYTHONPATH")
    return {
        "LD_PRELOAD": str(library),
        "PYTHONPATH": os.pathsep.join([str(packages), *([inherited] if inherited else [])]),
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "ATEN_CPU_CAPABILITY": "avx2",
    }


def check_capped() -> None:
    """Make sure that this process's ONNX Runtime was told a lie.

    Raises:
        CapError: it was not.
    """
    import onnxruntime  # noqa: PLC0415, F401  it asks when it is imported

    answered = ctypes.CDLL(os.environ.get("LD_PRELOAD") or None).isacap_answered
    answered.restype = ctypes.c_ulong
    if answered() == 0:
        msg = "ONNX Runtime never asked for the processor's features: the cap is not in force"
        raise CapError(msg)


def _patched_copy(folder: Path) -> None:
    spec = importlib.util.find_spec("onnxruntime")
    if spec is None or spec.origin is None:
        msg = "onnxruntime is not installed"
        raise CapError(msg)
    copy = shutil.copytree(Path(spec.origin).parent, folder / "onnxruntime")
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
