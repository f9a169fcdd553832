"""What an emulated ARM processor runs: Python, ONNX Runtime, and the libraries under them.

A folder beside the results of builds. Python and its libraries are Debian's own packages for
arm64; ONNX Runtime and NumPy are the published wheels, in the versions that are installed here.
The folder appears when it is complete and was tried out, or not at all.
"""

import contextlib
import hashlib
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final

from stoker_builder.cache import default_folder
from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.kernels.downloads import fetch_debian, fetch_wheels, run_program
from stoker_builder.kernels.processors import PROCESSORS, Processor
from stoker_contract.target import Arch

PROGRAM: Final = "qemu-aarch64"
_DEBIAN: Final = ("python3-minimal", "libpython3-stdlib", "libstdc++6")
# the wheel for ARM, and what of the same version may be installed here
_WHEELS: Final[Mapping[str, tuple[str, ...]]] = {
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino"),
    "numpy": ("numpy",),
}
_ELSEWHERE: Final = "make it on Debian 12 or later, and copy the cache folder stoker/sysroots"
_NEEDED: Final[Mapping[str, str]] = {
    "apt-get": _ELSEWHERE,
    "dpkg-deb": _ELSEWHERE,
    PROGRAM: "apt install qemu-user",
}
_KEPT: Final = frozenset({"usr", "lib", "bin"})
_ONE_CORE: Final = ("possible", "present", "online")
_SYSTEM, _PACKAGES, _ROOTS = "system", "packages", "processors"
# Meant for programs of this machine: an emulated one would look for x86 libraries.
_NOT_FOR_GUESTS: Final = ("LD_", "PYTHON", "QEMU_")


@dataclass(frozen=True, slots=True)
class Sysroot:
    """A folder with what an emulated ARM processor runs."""

    folder: Path

    @property
    def python(self) -> Path:
        """The interpreter, for ARM."""
        return next((self.folder / _SYSTEM / "usr/bin").glob("python3.[0-9]*"))

    def command(self, program: str, processor: Processor) -> tuple[str, ...]:
        """The start of a command line; arguments for Python follow.

        Args:
            program: the emulator.
            processor: what it is to be.
        """
        root = self.root_of(processor)
        # -S: neither this machine's site-packages nor Debian's have a say
        return (program, "-L", str(root), "-cpu", processor.option, str(self.python), "-S")

    def environment(self, *more: Path) -> dict[str, str]:
        """All of the environment of such a process.

        Args:
            more: comes on its module path after ONNX Runtime and NumPy.
        """
        paths = os.pathsep.join(map(str, (self.folder / _PACKAGES, *more)))
        rest = {k: v for k, v in os.environ.items() if not k.startswith(_NOT_FOR_GUESTS)}
        return {**rest, "PYTHONPATH": paths}

    def root_of(self, processor: Processor) -> Path:
        """What a program on that processor takes for the root of the file system."""
        return self.folder / _ROOTS / processor.name


def find_sysroot(folder: Path | None = None) -> Sysroot | None:
    """The sysroot for the installed ONNX Runtime, if it was made.

    Args:
        folder: where sysroots are; beside the results of builds when absent.

    Raises:
        BuildError: ``EMULATOR``; no package says which ONNX Runtime is installed.
    """
    found = _place(folder)
    return Sysroot(found) if found.is_dir() else None


def make_sysroot(
    folder: Path | None = None,
    *,
    sources: Path | None = None,
    tell: Callable[[str], object] = lambda _step: None,
) -> Sysroot:
    """Make the sysroot for the installed ONNX Runtime, unless it is there.

    Args:
        folder: where sysroots are; beside the results of builds when absent.
        sources: a ``sources.list`` with packages for arm64; those of the machine when absent.
        tell: called with each step before it begins.

    Raises:
        BuildError: ``EMULATOR``; a program or the network is missing, or what was fetched
            does not run. Nothing is left behind.
    """
    if (known := find_sysroot(folder)) is not None:
        return known
    _check_programs()
    place = _place(folder)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".new-", dir=place.parent) as unfinished:
            made = Sysroot(Path(unfinished) / "sysroot")
            _fill(made, Path(unfinished), sources, tell)
            made.folder.rename(place)
    except OSError as error:
        if (known := find_sysroot(folder)) is not None:  # another process was faster
            return known
        detail = f"no sysroot could be made in {place.parent}: {error.strerror or error}"
        raise BuildError(BuildCode.EMULATOR, detail, "make room, or set XDG_CACHE_HOME") from None
    return Sysroot(place)


def _place(folder: Path | None) -> Path:
    made_of = [*_DEBIAN, *(p.name + p.cpuinfo for p in PROCESSORS[Arch.AARCH64])]
    recipe = hashlib.sha256("\n".join(made_of).encode()).hexdigest()
    where = folder or default_folder().with_name("sysroots")
    versions = "-".join(f"{name}-{version}" for name, version in _versions().items())
    return where / f"{Arch.AARCH64}-{versions}-{recipe[:12]}"


def _versions() -> dict[str, str]:
    return {name: _version(name, installed) for name, installed in _WHEELS.items()}


def _version(name: str, installed: Iterable[str]) -> str:
    for package in installed:
        with contextlib.suppress(metadata.PackageNotFoundError):
            return metadata.version(package)
    detail = f"{name} is not installed"
    raise BuildError(BuildCode.EMULATOR, detail, "pip install 'stoker[builder]'")


def _check_programs() -> None:
    for program, hint in _NEEDED.items():
        if shutil.which(program) is None:
            raise BuildError(BuildCode.EMULATOR, f"{program} is not installed", hint)


def _fill(
    made: Sysroot, scratch: Path, sources: Path | None, tell: Callable[[str], object]
) -> None:
    tell("fetch Python and its libraries for arm64")
    system = made.folder / _SYSTEM
    system.mkdir(parents=True)
    for package in fetch_debian(scratch / "apt", _DEBIAN, sources):
        run_program(["dpkg-deb", "--extract", str(package), str(system)], "run it again")
    _keep_libraries(system)
    for processor in PROCESSORS[Arch.AARCH64]:
        _make_root(made.root_of(processor), system, processor)
    versions = _versions()
    tell("fetch " + " and ".join(f"{name} {version}" for name, version in versions.items()))
    python = made.python.name.removeprefix("python")
    for wheel in fetch_wheels(scratch / "wheels", versions, python):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(made.folder / _PACKAGES)
    tell("try it")
    tried = [*made.command(PROGRAM, PROCESSORS[Arch.AARCH64][0]), "-c", "import onnxruntime"]
    run_program(tried, "try a newer qemu-user", environment=made.environment())


def _keep_libraries(system: Path) -> None:
    """Leave what Python needs, where the emulator looks for it."""
    if not (system / "lib").exists():  # later Debians have everything below /usr
        (system / "lib").symlink_to("usr/lib")
    for path in (*system.iterdir(), *(system / "usr").iterdir()):
        if path.name not in _KEPT and path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)


def _make_root(root: Path, system: Path, processor: Processor) -> None:
    """The file system as that processor shows it; what is not in it is this machine's."""
    cores = root / "sys/devices/system/cpu"
    cores.mkdir(parents=True)
    for name in _ONE_CORE:
        (cores / name).write_text("0\n", encoding="ascii")
    (root / "proc").mkdir()
    (root / "proc/cpuinfo").write_text(processor.cpuinfo, encoding="ascii")
    for name in ("usr", "lib"):
        (root / name).symlink_to(os.path.relpath(system / name, root))
