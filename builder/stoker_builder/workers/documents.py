"""What client, service and workers say to each other. Parsed once, at the edge.

Reading raises :class:`stoker_contract.errors.ContractError` and nothing else.
"""

import hashlib
from typing import Annotated, Final

from pydantic import Field, StringConstraints
from typing_extensions import Self

from stoker_builder.profiling.operators import OperatorProfile
from stoker_builder.tensorrt.layers import PlanLayers
from stoker_builder.tensorrt.settings import CompileSettings, Validity
from stoker_builder.workers.states import JobState
from stoker_contract.document import Document
from stoker_contract.manifest import EngineIO
from stoker_contract.names import (
    Count,
    Detail,
    Milliseconds,
    PositiveInt,
    Seconds,
    Sha256,
    ShortText,
    Slug,
)
from stoker_contract.target import Arch, Target

MAX_BLOB_BYTES: Final = 4 * 1024**3
MAX_LISTED: Final = 200
MAX_LIST_BYTES: Final = 16 * 1024**2

JobId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
Session = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")]
WorkerName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Classes = Annotated[tuple[Slug, ...], Field(max_length=64)]


class Blob(Document):
    """Bytes in the store, by digest."""

    digest: Sha256
    length: Annotated[int, Field(ge=1, le=MAX_BLOB_BYTES)]


class BuildJob(Document):
    """One plan that is wanted.

    Attributes:
        hardware_class: the kind of worker that can make it, which is the target's name
            without what a worker of that kind does not care about.
        onnx: what is compiled.
        settings: how.
        target: for what; a worker whose software differs leaves the job alone.
        samples: inputs to answer with the finished plan, where the worker has the GPU.
        max_attempts: workers that may take it and end without a word.
        limit_s: until the compiler is ended.
        memory_bytes: until the compiler is ended; None for what the worker can spare.
    """

    hardware_class: Slug
    onnx: Blob
    settings: CompileSettings
    target: Target
    samples: Blob | None = None
    max_attempts: Annotated[int, Field(ge=1, le=10)] = 3
    limit_s: Annotated[float, Field(gt=0, le=86_400)] = 3600.0
    memory_bytes: PositiveInt | None = None

    @property
    def key(self) -> str:
        """The name of what is asked for. Limits do not change what comes out."""
        asked = self.model_copy(
            update={"max_attempts": 1, "limit_s": 1.0, "memory_bytes": None}
        ).encode()
        return hashlib.sha256(asked).hexdigest()


class Software(Document):
    """The part of a worker that can change what it builds. What is absent is not there.

    Attributes:
        code: digest of the compile path of stoker itself.
        power_mode: kernels are chosen by how fast they are at these clocks.
    """

    arch: Arch
    module: ShortText | None = None
    gpu_sm: ShortText | None = None
    l4t: ShortText | None = None
    cuda: ShortText | None = None
    tensorrt: ShortText | None = None
    tensorrt_rtx: ShortText | None = None
    power_mode: ShortText | None = None
    code: ShortText = ""

    def key_of(self, job: BuildJob) -> str:
        """The name of what this software makes of a job."""
        return hashlib.sha256(job.key.encode() + self.encode()).hexdigest()

    def timing_key(self, hardware_class: str) -> str:
        """The name of the timing cache that it can go on with."""
        return hashlib.sha256(hardware_class.encode() + self.encode()).hexdigest()


class WorkerDescription(Document):
    """What a worker says of itself.

    Attributes:
        session: made up at each start; a worker that comes back has forgotten its job.
        classes: what it builds for.
    """

    name: WorkerName
    session: Session
    classes: Classes
    software: Software
    python: ShortText = ""
    stoker: ShortText = ""
    isa: Annotated[tuple[ShortText, ...], Field(max_length=256)] = ()
    cpu_model: ShortText = ""
    cores: Count = 0
    memory_bytes: Count = 0


class Evidence(Document):
    """How a plan was made, and what it did where it was made.

    Attributes:
        version: of TensorRT, from the header of the plan.
        inspected: what its layers became, where it could be loaded.
        not_run: why it did not run there; empty where it did.
        answers: its outputs for the job's samples, in their order.
        p50_ms: of one run, over all samples; the first run is not counted.
        recorded_p50_ms: the same, recorded as a CUDA graph; absent where that can not be.
        operators: the layers that take the time of a plain run, if the library tells.
    """

    version: ShortText
    gpu_sms: Annotated[tuple[ShortText, ...], Field(max_length=16)] = ()
    io: EngineIO
    layers: Count = 0
    compile_s: Seconds = 0.0
    validity: Validity = Validity.NOT_ASKED
    warnings: Annotated[tuple[Detail, ...], Field(max_length=16)] = ()
    inspected: PlanLayers | None = None
    not_run: Detail = ""
    answers: Blob | None = None
    runs: Count = 0
    p50_ms: Milliseconds | None = None
    p99_ms: Milliseconds | None = None
    recorded_p50_ms: Milliseconds | None = None
    operators: OperatorProfile | None = None


class JobOutcome(Document):
    """How a job ended, in the words of the worker, or of the service where no worker said any.

    Attributes:
        code: a build code, and then there is no plan.
    """

    plan: Blob | None = None
    timing_cache: Blob | None = None
    evidence: Evidence | None = None
    worker: WorkerDescription | None = None
    code: ShortText | None = None
    detail: Detail = ""
    hint: Detail = ""

    @property
    def is_certified(self) -> bool:
        """There is a plan, and somebody vouches for it."""
        return self.code is None and self.plan is not None and self.evidence is not None

    @property
    def fetched(self) -> tuple[Blob, ...]:
        """What whoever asked for it needs."""
        answers = None if self.evidence is None else self.evidence.answers
        return tuple(blob for blob in (self.plan, answers) if blob is not None)


class Attempt(Document):
    """Who speaks about a job: an older attempt is not listened to."""

    number: PositiveInt


class Ending(Document):
    """The outcome of one attempt."""

    number: PositiveInt
    outcome: JobOutcome


class Grant(Document):
    """A job in the hands of a worker.

    Attributes:
        number: of the attempt.
        lease_s: without a word for so long, the job goes to another.
        timing_cache: of an earlier build of this class with the same software.
    """

    id: JobId
    number: PositiveInt
    job: BuildJob
    lease_s: Annotated[float, Field(gt=0)]
    timing_cache: Blob | None = None


class JobView(Document):
    """What anybody may know of a job.

    Attributes:
        workers: of its class that were heard of lately.
        from_cache: somebody had built it before.
    """

    id: JobId
    state: JobState
    job: BuildJob
    attempts: Count = 0
    worker: WorkerName | None = None
    workers: Count = 0
    from_cache: bool = False
    outcome: JobOutcome | None = None


class JobList(Document):
    """Jobs, the newest first."""

    jobs: Annotated[tuple[JobView, ...], Field(max_length=MAX_LISTED)] = ()


class WorkerView(Document):
    """A worker, and for how long it has said nothing."""

    worker: WorkerDescription
    silent_s: Seconds


class WorkerList(Document):
    """Workers that were ever heard of."""

    workers: Annotated[tuple[WorkerView, ...], Field(max_length=MAX_LISTED)] = ()


class Refused(Document):
    """Why the service does not do what it was asked."""

    code: ShortText
    detail: Detail = ""
    hint: Detail = ""

    @classmethod
    def of(cls, code: str, detail: str, hint: str = "") -> Self:
        """Made of texts of any length."""
        return cls(code=code, detail=detail[:1024], hint=hint[:1024])
