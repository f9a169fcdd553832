"""Running candidates with the engine code that ships: in this process, or in one of its own."""

import os
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from stoker_builder.child_loop import Arrays
from stoker_builder.children import Limits, ModelChild
from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.kernels.places import Place, Way
from stoker_contract.manifest import SessionOptions
from stoker_contract.target import ArtifactKind, Runtime
from stoker_engine.backends import open_engine
from stoker_engine.engine import EngineError


@contextmanager
def compiled_once(folder: Path, runtimes: Collection[Runtime]) -> Iterator[None]:
    """Let OpenVINO, if it is one of the runtimes, keep in a folder what it compiles here.

    A build opens each file several times. What is timed is opened as a device opens it.
    """
    core = _openvino() if Runtime.OPENVINO in runtimes else None
    if core is None:
        yield
        return
    core.set_property({"CACHE_DIR": str(folder / "openvino")})
    try:
        yield
    finally:
        core.set_property({"CACHE_DIR": ""})


def _openvino() -> Any:  # noqa: ANN401 - the runtime's own class
    try:
        from stoker_engine.openvino_backend import core  # noqa: PLC0415  an extra

        return core()
    except Exception:  # noqa: BLE001  what is not there or broken loses its candidates, by name
        return None


class EngineRunner:
    """An engine in this process.

    Raises:
        BuildError: ``UNSUPPORTED_OP``, when its runtime can not load the file.
    """

    def __init__(self, path: Path, session: SessionOptions) -> None:
        try:
            self.engine = open_engine(str(path), ArtifactKind.ONNX, session)
        except EngineError as error:
            hint = "ship it with another runtime; the build goes on without this candidate"
            detail = f"{path.name} can not be loaded: {error.detail[:400]}"
            raise BuildError(BuildCode.UNSUPPORTED_OP, detail, hint) from None
        self._names = [spec.name for spec in self.engine.io.outputs]

    def run(self, inputs: Arrays) -> Arrays:
        """Answer one sample with all outputs.

        Raises:
            BuildError: ``DATA_MISMATCH``, when the model can not take it.
        """
        try:
            outputs = self.engine.run(inputs, self._names)
        except EngineError as error:
            detail = f"the model refuses a sample: {error.detail[:400]}"
            hint = "each sample needs the model's input names, types and shapes"
            raise BuildError(BuildCode.DATA_MISMATCH, detail, hint) from None
        return dict(zip(self._names, outputs, strict=True))

    def __call__(self, inputs: Arrays) -> object:
        """Run for the time it takes. Raises as :meth:`run`."""
        try:
            return self.engine.run(inputs, self._names)
        except EngineError as error:
            detail = f"it ran before and does not now: {error.detail[:400]}"
            raise BuildError(BuildCode.MEASURE, detail, "run the build again") from None


class EngineChild(ModelChild):
    """An engine in a process of its own, in a place that says what instructions it may use.

    A context manager. It answers like :class:`EngineRunner`, and times itself over there.

    Args:
        path: the artifact.
        session: how it is run.
        inputs: the sample that is timed.
        place: whose environment is added to that of this process.
        limits: how long it may take.
    """

    def __init__(
        self,
        path: Path,
        session: SessionOptions,
        inputs: Arrays,
        place: Place,
        limits: Limits = Limits(),  # noqa: B008 - frozen
    ) -> None:
        super().__init__(
            "stoker_builder.kernels.engine_child",
            {"path": str(path), "session": session.to_object()},
            inputs,
            title=path.name,
            hint="run it again; report it if it repeats",
            limits=limits,
        )
        self._place = place

    def _environment(self, scratch: Path) -> Mapping[str, str]:
        del scratch
        first = [str(self._place.packages)] if self._place.packages else []
        paths = os.pathsep.join([*first, *(p for p in sys.path if p)])
        return {**os.environ, **self._place.environment, "PYTHONPATH": paths}


def runner_at(
    place: Place, path: Path, session: SessionOptions, example: Arrays, stack: ExitStack
) -> EngineRunner | EngineChild:
    """Something that answers in a place, until the stack is closed.

    Raises:
        BuildError: ``UNSUPPORTED_OP`` or ``MEASURE``, when it can not be loaded.
    """
    if place.way is Way.NATIVE:
        return EngineRunner(path, session)
    return stack.enter_context(EngineChild(path, session, example, place))
