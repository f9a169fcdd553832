"""What can be measured: an artifact file, what a release has for this machine, a live server."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from stoker_builder.benchmark.endpoint import Endpoint
from stoker_builder.benchmark.samples import made_up, read_arrays
from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.kernels.isa import target_runs_natively
from stoker_builder.models.source import Inputs
from stoker_builder.release import read_manifest
from stoker_client.errors import InferError
from stoker_contract.manifest import Artifact, SessionOptions
from stoker_contract.target import ArtifactKind, Runtime, runtime_of
from stoker_engine.backends import open_engine
from stoker_engine.engine import Engine, EngineError

_KINDS: Final = {".onnx": ArtifactKind.ONNX, ".xml": ArtifactKind.OPENVINO_IR}


@dataclass(frozen=True, slots=True)
class Subject:
    """Something to measure, not opened yet.

    Attributes:
        name: for people.
        where: a file, or the address of a server.
        kind: of the file; None for a server.
        session: how the runtime is set up.
        golden: inputs that travel with the artifact.
    """

    name: str
    where: str
    kind: ArtifactKind | None = None
    session: SessionOptions = field(default_factory=SessionOptions)
    golden: Path | None = None

    @property
    def runtime(self) -> str:
        """What runs it."""
        return "server" if self.kind is None else runtime_of(self.kind, self.session.runtime).value


@dataclass(frozen=True, slots=True)
class Opened:
    """A subject that is ready to run.

    Attributes:
        callers: each runs once per call, and may be called while the others run.
    """

    subject: Subject
    inputs: Inputs
    callers: tuple[Callable[[], object], ...]


def subjects_of(
    where: str,
    *,
    runtimes: Sequence[Runtime] = (),
    threads: int | None = None,
    target: str | None = None,
) -> list[Subject]:
    """Find out what was named.

    Args:
        where: a file, a release folder, ``http://HOST:PORT`` or the path of a Unix socket.
        runtimes: measure it with each of these; none takes the usual one, or the manifest's.
        threads: within a run; None takes one, or what the manifest says.
        target: of a release; None takes those that this machine runs.

    Raises:
        BuildError: ``MODEL_MISSING`` or ``BAD_REQUEST``.
    """
    path = Path(where)
    if where.startswith(("http://", "unix:")) or path.is_socket():
        return [Subject(where, where)]
    if path.is_dir():
        base = _of_release(path, target)
    elif path.is_file():
        base = [Subject(path.name, str(path), _kind_of(path))]
    else:
        detail = f"{where} is no file, no folder and no server"
        hint = "give an .onnx file, a release folder, http://HOST:PORT or a Unix socket"
        raise BuildError(BuildCode.MODEL_MISSING, detail, hint)
    return [made for one in base for made in _varied(one, runtimes, threads)]


def runtimes_of(names: Sequence[str]) -> tuple[Runtime, ...]:
    """The runtimes of these names.

    Raises:
        BuildError: ``BAD_REQUEST``.
    """
    try:
        return tuple(Runtime(name) for name in dict.fromkeys(names))
    except ValueError:
        hint = f"there are: {', '.join(Runtime)}"
        detail = f"no runtime is named {', '.join(names)!r}"
        raise BuildError(BuildCode.BAD_REQUEST, detail, hint) from None


def open_subject(
    subject: Subject, stack: ExitStack, *, model: str | None, given: Path | None, parallel: int
) -> Opened:
    """Load it, or connect to it.

    Args:
        subject: what.
        stack: closes it.
        model: which model of a server.
        given: an ``.npz`` with the inputs; None takes the golden ones, or makes some up.
        parallel: how many callers are wanted.

    Raises:
        BuildError: ``MEASURE``, it can not be run here; ``DATA_MISMATCH``; ``BAD_REQUEST``.
    """
    if subject.kind is None:
        return _open_server(subject, stack, model=model, given=given, parallel=parallel)
    session = subject.session.model_copy(update={"parallel_runs": parallel})
    try:
        engine = open_engine(subject.where, subject.kind, session)
    except EngineError as error:
        hint = "see which runtimes are installed, and whether the file is for one of them"
        raise BuildError(BuildCode.MEASURE, f"{subject.name}: {error.detail}", hint) from None
    stack.callback(engine.close)
    inputs = _inputs(subject, given) or made_up(engine.io)
    caller = _engine_caller(engine, inputs)
    _try_once(subject, caller)
    return Opened(subject, inputs, (caller,) * parallel)


def _open_server(
    subject: Subject, stack: ExitStack, *, model: str | None, given: Path | None, parallel: int
) -> Opened:
    if model is None:
        hint = "name the model, or the slot, with --model"
        raise BuildError(BuildCode.BAD_REQUEST, f"{subject.where} is a server", hint)
    first = Endpoint(subject.where, model)
    inputs = _inputs(subject, given) or made_up(first.io())
    callers = []
    for number in range(parallel):
        endpoint = first if number == 0 else Endpoint(subject.where, model)
        stack.callback(endpoint.close)
        callers.append(endpoint.caller(inputs))
    _try_once(subject, callers[0])
    named = Subject(f"{model} at {subject.where}", subject.where)
    return Opened(named, inputs, tuple(callers))


def _engine_caller(engine: Engine, inputs: Inputs) -> Callable[[], object]:
    wanted = [spec.name for spec in engine.io.outputs]
    return lambda: engine.run(inputs, wanted)


def _try_once(subject: Subject, caller: Callable[[], object]) -> None:
    try:
        caller()
    except (EngineError, InferError) as error:
        if isinstance(error, InferError) and not error.status:
            detail = f"{subject.where} does not answer: {error.detail}"
            raise BuildError(BuildCode.MEASURE, detail, "is it the right address?") from None
        hint = "give inputs that it takes, as an .npz, with --inputs"
        detail = f"{subject.name} refuses its inputs: {error.detail}"
        raise BuildError(BuildCode.DATA_MISMATCH, detail, hint) from None


def _of_release(folder: Path, target: str | None) -> list[Subject]:
    manifest = read_manifest(folder)
    wanted = [
        artifact
        for artifact in manifest.artifacts
        if (artifact.target.name == target if target else target_runs_natively(artifact.target))
    ]
    if not wanted:
        names = ", ".join(artifact.target.name for artifact in manifest.artifacts)
        what = f"no artifact for {target}" if target else "no artifact that this processor runs"
        hint = f"it has: {names}"
        raise BuildError(BuildCode.BAD_REQUEST, f"{manifest.release} has {what}", hint)
    return [_of_artifact(folder, artifact) for artifact in wanted]


def _of_artifact(folder: Path, artifact: Artifact) -> Subject:
    file = artifact.path.rpartition("/")[2]
    return Subject(
        f"{artifact.target.name} {Path(file).stem}",
        str(folder / file),
        artifact.kind,
        artifact.session,
        folder / artifact.golden.path.rpartition("/")[2],
    )


def _varied(
    subject: Subject, runtimes: Sequence[Runtime], threads: int | None
) -> Iterator[Subject]:
    for runtime in runtimes or (None,):
        changes: dict[str, object] = {}
        if runtime is not None:
            changes["runtime"] = runtime
        if threads is not None:
            changes["intra_op_threads"] = threads
        session = subject.session.model_copy(update=changes)
        name = f"{subject.name} · {runtime}" if len(runtimes) > 1 else subject.name
        yield Subject(name, subject.where, subject.kind, session, subject.golden)


def _kind_of(path: Path) -> ArtifactKind:
    kind = _KINDS.get(path.suffix)
    if kind is None:
        detail = f"{path.name} is not a kind of artifact that can be run here"
        hint = f"these can: {', '.join(_KINDS)}"
        raise BuildError(BuildCode.MODEL_FORMAT, detail, hint)
    return kind


def _inputs(subject: Subject, given: Path | None) -> Inputs | None:
    if given is not None:
        return read_arrays(given, prefix="", sample=False)
    if subject.golden is not None and subject.golden.is_file():
        return read_arrays(subject.golden, prefix="input.", sample=True)
    return None
