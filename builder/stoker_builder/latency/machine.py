"""What this machine is: the context without which a latency figure means nothing."""

import os
import platform
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Final

import psutil

from stoker_builder.kernels.isa import AMX, VNNI, best_kernels, host_isa

_CPU_FREQUENCY: Final = Path("/sys/devices/system/cpu/cpu0/cpufreq")
_THROTTLE_COUNT: Final = Path("/sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count")
_RUNTIMES: Final = ("torch", "onnxruntime", "onnx", "numpy", "openvino")


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine at one moment. A field the machine does not tell is None.

    Attributes:
        signature: family and model of the processor, ``f26m2``: clouds hide its name, and two
            generations behind one name are not one machine.
    """

    cpu_model: str
    arch: str
    isa: tuple[str, ...]
    cores: int
    memory_bytes: int
    kernel: str
    python: str
    runtimes: dict[str, str]
    load_1min: float
    governor: str | None
    frequency_mhz: float | None
    throttle_count: int | None
    signature: str = ""

    @property
    def slug(self) -> str:
        """A name for result files: the processor and its cores, nothing about the owner."""
        words = "".join(c.lower() if c.isalnum() else " " for c in self.cpu_model).split()
        noise = {"r", "tm", "cpu", "processor", "core", "with", "ghz"}
        kept = [w for w in words if w not in noise][:4] or [self.arch]
        kernels = "amx" if AMX in self.isa else "vnni" if VNNI & set(self.isa) else None
        told = [self.signature, kernels]
        return "-".join([*kept, *(word for word in told if word), f"{self.cores}c"])

    @property
    def summary(self) -> str:
        """One line for a table's caption and for ``Latency.measured_on``."""
        return f"{self.cpu_model}, {self.cores} cores, {best_kernels(frozenset(self.isa))}"

    def to_object(self) -> dict[str, object]:
        """Return what goes into a report as JSON."""
        return asdict(self)


def describe_machine() -> Machine:
    """Look at this machine."""
    return Machine(
        cpu_model=_cpu_model(),
        arch=platform.machine(),
        isa=tuple(sorted(host_isa())),
        cores=os.cpu_count() or 1,
        memory_bytes=psutil.virtual_memory().total,
        kernel=platform.release(),
        python=platform.python_version(),
        runtimes=_runtimes(),
        load_1min=os.getloadavg()[0],
        governor=_read(_CPU_FREQUENCY / "scaling_governor"),
        frequency_mhz=_mhz(_read(_CPU_FREQUENCY / "scaling_cur_freq")),
        throttle_count=_count(_read(_THROTTLE_COUNT)),
        signature=_signature(),
    )


def _cpu_model() -> str:
    for line in (_read(Path("/proc/cpuinfo")) or "").splitlines():
        key, _, value = line.partition(":")
        if (
            key.strip().lower() in {"model name", "model", "hardware"}
            and not value.strip().isdigit()
        ):
            return value.strip()
    return platform.machine()


def _signature() -> str:
    told = {}
    for line in (_read(Path("/proc/cpuinfo")) or "").splitlines():
        key, _, value = line.partition(":")
        told[key.strip()] = value.strip()
    family, model = told.get("cpu family"), told.get("model")
    return f"f{family}m{model}" if family and model else ""


def _runtimes() -> dict[str, str]:
    found = {}
    for name in _RUNTIMES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return None


def _mhz(khz: str | None) -> float | None:
    return int(khz) / 1000 if khz is not None and khz.isdigit() else None


def _count(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdigit() else None
