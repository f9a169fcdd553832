"""The processors that an emulator can be, as data.

ONNX Runtime asks the kernel for the features of a processor and ``/proc/cpuinfo`` for its make,
and takes kernels by both. The emulator answers the first question and lets the file of this
machine through for the second, so an ARM processor brings a file of its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from stoker_contract.target import Arch, Target

_ARM: Final = frozenset(["fp", "asimd", "aes", "pmull", "sha1", "sha2", "crc32", "cpuid"])
_ARM_DOT: Final = _ARM | frozenset(
    "atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp".split()  # noqa: SIM905  as it is printed
)
_ARM_MATRIX: Final = _ARM_DOT | frozenset(
    "jscvt fcma sha3 sm3 sm4 sha512 asimdfhm flagm flagm2 frint i8mm bf16".split()  # noqa: SIM905
)
_ARM_VECTOR: Final = _ARM_MATRIX | {"sve", "sve2", "svei8mm", "svebf16"}
_HASWELL: Final = frozenset(["sse4_2", "avx", "avx2", "fma", "f16c", "bmi1", "bmi2"])
# Features that a Haswell has and the emulator lacks: taken off, or it warns about each.
_QUIET: Final = ",-pcid,-x2apic,-tsc-deadline,-hle,-invpcid,-rtm"
# The signing of pointers is emulated slowly, as a cipher, or quickly; nothing here depends on it.
_QUICK: Final = ",pauth-impdef=on"


@dataclass(frozen=True, slots=True)
class Processor:
    """A processor that an emulator can be.

    Attributes:
        name: as the emulator and the manifest call it.
        features: as ``/proc/cpuinfo`` spells them.
        part: ARM's number for it.
        settings: what else the emulator is told.
    """

    name: str
    features: frozenset[str]
    part: str = ""
    settings: str = ""

    @property
    def option(self) -> str:
        """What follows ``-cpu``."""
        return self.name + self.settings

    def lacks(self, target: Target) -> tuple[str, ...]:
        """What the target asks for and this processor has not."""
        return tuple(wanted for wanted in target.isa if not set(wanted.split("|")) & self.features)

    @property
    def cpuinfo(self) -> str:
        """An ARM processor's ``/proc/cpuinfo``, with one core."""
        lines = {
            "processor": "0",
            "BogoMIPS": "100.00",
            "Features": " ".join(sorted(self.features)),
            "CPU implementer": "0x41",
            "CPU architecture": "8",
            "CPU variant": "0x0",
            "CPU part": self.part,
            "CPU revision": "1",
        }
        return "".join(f"{key}\t: {value}\n" for key, value in lines.items()) + "\n"


PROCESSORS: Final[Mapping[Arch, tuple[Processor, ...]]] = MappingProxyType(
    {
        Arch.X86_64: (Processor("Haswell", _HASWELL, settings=_QUIET),),
        Arch.AARCH64: (
            Processor("cortex-a72", _ARM, "0xd08"),
            Processor("cortex-a76", _ARM_DOT, "0xd0b"),
            # Kernels that need SVE are others: a device with i8mm alone does not have them.
            Processor("max,sve=off,sme=off", _ARM_MATRIX, "0xd48", _QUICK),
            Processor("max,sme=off", _ARM_VECTOR, "0xd48", _QUICK),
        ),
    }
)
"""By architecture, those with fewer features first: more features are other kernels."""


def processor_for(target: Target) -> Processor | None:
    """The processor with the fewest features that has all that a target asks for."""
    able = (one for one in PROCESSORS.get(target.arch, ()) if not one.lacks(target))
    return next(able, None)
