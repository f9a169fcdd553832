"""The header of a TensorRT plan, read without TensorRT.

A runtime that deserialises a plan of another version, a cut one or one for another GPU says so
with a crash at worst, so the bytes are looked at before any runtime is imported. TensorRT and
TensorRT-RTX share the layout of the first 28 bytes (little-endian)::

    0   4  magic: "ftrt" (TensorRT), "vtrt" (TensorRT-RTX)
    4   4  version of the serialisation
    8   8  reserved
   16   8  length of the whole plan
   24   4  version of the library: major, minor, patch, build
   32   4  TensorRT-RTX only: the compute capabilities it was compiled for, a bit each
"""

import struct
from dataclasses import dataclass
from typing import Final

from stoker_contract.codes import ReasonCode
from stoker_contract.errors import ContractError
from stoker_contract.target import Runtime, is_version

HEADER_BYTES: Final = 64

_LAYOUT: Final = struct.Struct("<4sI8xQ4B4xI")
_MAGIC: Final = {b"ftrt": Runtime.TENSORRT, b"vtrt": Runtime.TENSORRT_RTX}
_RTX_CAPABILITIES: Final = ("75", "80", "86", "89", "120", "121")


@dataclass(frozen=True, slots=True)
class PlanHeader:
    """What a plan says of itself.

    Attributes:
        runtime: what made it, and alone can run it.
        version: of that runtime, four numbers.
        serialisation: version of the format; informative.
        length: of the whole plan, in bytes.
        gpu_sms: the compute capabilities it was compiled for, as far as the header tells:
            TensorRT writes them elsewhere.
    """

    runtime: Runtime
    version: str
    serialisation: int
    length: int
    gpu_sms: tuple[str, ...] = ()


def read_plan_header(data: bytes | memoryview, length: int | None = None) -> PlanHeader:
    """Read the header of a plan and check that the plan is whole.

    Args:
        data: the plan, or at least its first 64 bytes.
        length: of the file, when ``data`` is only its beginning.

    Raises:
        ContractError: ``UNSAFE_MODEL``: it is cut short, or no plan at all.
    """
    present = len(data) if length is None else length
    if len(data) < HEADER_BYTES:
        detail = f"a plan has at least {HEADER_BYTES} bytes, this has {len(data)}"
        raise ContractError(ReasonCode.UNSAFE_MODEL, detail)
    magic, serialisation, promised, *rest = _LAYOUT.unpack_from(data)
    *version, capabilities = rest
    runtime = _MAGIC.get(magic)
    if runtime is None:
        detail = f"this is no TensorRT plan: it begins with {bytes(magic)!r}"
        raise ContractError(ReasonCode.UNSAFE_MODEL, detail)
    if promised != present:
        detail = f"the plan says it has {promised} bytes, it has {present}: it was cut or changed"
        raise ContractError(ReasonCode.UNSAFE_MODEL, detail)
    return PlanHeader(
        runtime=runtime,
        version=".".join(map(str, version)),
        serialisation=serialisation,
        length=promised,
        gpu_sms=_capabilities(capabilities) if runtime is Runtime.TENSORRT_RTX else (),
    )


def why_plan_unfit(
    header: PlanHeader, runtime: Runtime, *, version: str | None, gpu_sm: str | None
) -> str | None:
    """Say why a plan can not run here, or None if nothing in its header speaks against it.

    Args:
        header: of the plan.
        runtime: what is to run it.
        version: of that runtime on this machine; None when it is not known yet.
        gpu_sm: compute capability of the GPU here; None when it is not known yet.
    """
    if header.runtime is not runtime:
        return f"the plan was made by {header.runtime}, it is to run with {runtime}"
    if version is not None and not is_version(version, header.version):
        return f"the plan was made by {runtime} {header.version}, this device has {version}"
    if gpu_sm is not None and header.gpu_sms and gpu_sm not in header.gpu_sms:
        made_for = ", ".join(header.gpu_sms)
        return f"the plan was compiled for compute capability {made_for}, this GPU has {gpu_sm}"
    return None


def _capabilities(bits: int) -> tuple[str, ...]:
    return tuple(name for index, name in enumerate(_RTX_CAPABILITIES) if bits >> index & 1)
