"""What an engine is: the one small interface that every runtime is put behind."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from stoker_contract.codes import ReasonCode
from stoker_contract.engine import EngineSpec
from stoker_contract.manifest import EngineIO

Array = npt.NDArray[Any]


class Engine(Protocol):
    """A loaded model. ``run`` may be called from several threads at once."""

    @property
    def io(self) -> EngineIO:
        """The tensors it takes and gives, as the runtime itself reports them."""

    def run(self, inputs: Mapping[str, Array], wanted: Sequence[str]) -> Sequence[Array]:
        """Run once and return the wanted outputs in that order.

        Raises:
            EngineError: ``BAD_REQUEST`` when the runtime refused the inputs, else ``RUN_ERROR``
                or ``MEMORY``.
        """

    def close(self) -> None:
        """Give back what the engine holds."""


class Loader(Protocol):
    """Makes an engine of a file."""

    def __call__(self, path: str, spec: EngineSpec) -> Engine:
        """Load the file at ``path``, which may be a ``/proc/self/fd`` link.

        Raises:
            EngineError: ``LOAD_ERROR`` or ``MEMORY``.
        """


class EngineError(Exception):
    """Why an engine could not be loaded, or a run failed."""

    def __init__(self, code: ReasonCode, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail[:1024]


class EngineLostError(EngineError):
    """The engine can not be used any more; its process has to end and be started again."""

    def __init__(self, detail: str) -> None:
        super().__init__(ReasonCode.ENGINE_CRASHED, detail)


def check_io(promised: EngineIO, found: EngineIO) -> None:
    """Refuse an engine whose tensors are not those that the manifest promised.

    The manifest may fix a dimension that the model leaves open; nothing else may differ.

    Raises:
        EngineError: ``LOAD_ERROR``.
    """
    for kind, wanted, present in (
        ("input", promised.inputs, found.inputs),
        ("output", promised.outputs, found.outputs),
    ):
        if [spec.name for spec in wanted] != [spec.name for spec in present]:
            names = [spec.name for spec in present], [spec.name for spec in wanted]
            detail = f"the model has {kind}s {names[0]}, its manifest says {names[1]}"
            raise EngineError(ReasonCode.LOAD_ERROR, detail)
        for want, have in zip(wanted, present, strict=True):
            fits = len(want.shape) == len(have.shape) and all(
                there in (-1, said) for said, there in zip(want.shape, have.shape, strict=True)
            )
            if want.dtype != have.dtype or not fits:
                detail = (
                    f"{kind} {want.name} is {have.dtype}{list(have.shape)} in the model and "
                    f"{want.dtype}{list(want.shape)} in its manifest"
                )
                raise EngineError(ReasonCode.LOAD_ERROR, detail)


def as_array(value: object) -> Array:
    """An output as a contiguous array (runtimes give lists for sequences: those are refused).

    Raises:
        EngineError: ``RUN_ERROR``.
    """
    if not isinstance(value, np.ndarray):
        detail = f"an output is a {type(value).__name__}, only tensors can be served"
        raise EngineError(ReasonCode.RUN_ERROR, detail)
    return np.ascontiguousarray(value) if not value.flags.c_contiguous else value
