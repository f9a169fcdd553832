"""A device in a folder: the real journal, store, downloader and deployer, around a server."""

import asyncio
import hashlib
import io
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper

from stoker_agent.app.deployer import Deployer
from stoker_agent.app.effects import Effects
from stoker_agent.app.engine_effects import EngineEffects
from stoker_agent.app.probation import ProbationWatch
from stoker_agent.app.reporter import Reporter
from stoker_agent.app.run import Tuning
from stoker_agent.artifacts.download import Downloader, DownloadLimits
from stoker_agent.clock import SystemClock
from stoker_agent.core.ports import ServerControl, VerifiedDesired
from stoker_agent.errors import TrustError
from stoker_agent.state.journal import Journal
from stoker_agent.state.slots import SlotFiles
from stoker_agent.state.store import BlobStore
from stoker_contract import desired, manifest, target
from stoker_contract.codes import Outcome, ReasonCode
from stoker_contract.reported import Capacity
from stoker_contract.status import StatusEvent
from stoker_contract.topics import DeviceTopics
from support.documents import TIME
from support.http_server import Repository
from support.waiting import eventually

SLOT = "detector"
PROFILE = target.Profile(
    arch=target.Arch.X86_64, isa=("avx2",), cores=2, runtimes={"onnxruntime": "1.22.0"}
)
QUICK = Tuning(poll_s=0.02, progress_s=0.02, retry_base_s=0.02, retry_cap_s=0.1)
WIDTH = 4


def tiny_model(factor: float) -> bytes:
    """An ONNX file that multiplies four numbers by ``factor``."""
    weights = helper.make_tensor("w", TensorProto.FLOAT, [WIDTH], [factor] * WIDTH)
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "w"], ["y"])],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, WIDTH])],
        [weights],
    )
    opset = helper.make_opsetid("", 17)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=9)
    return bytes(model.SerializeToString())


def golden_set(factor: float, samples: int = 4) -> bytes:
    """What :func:`tiny_model` answers."""
    inputs = np.arange(samples * WIDTH, dtype=np.float32).reshape(samples, 1, WIDTH)
    buffer = io.BytesIO()
    arrays = {"input.x": inputs, "expected.y": inputs * np.float32(factor)}
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


@dataclass
class Release:
    """A published release of one artifact, and perhaps one that it falls back to."""

    manifest: manifest.Manifest
    manifest_ref: desired.FileRef

    @property
    def choice(self) -> desired.Choice:
        """The artifact and its golden set, as a desired state names them."""
        artifact = self.manifest.artifacts[0]
        return desired.Choice(artifact=_ref(artifact), golden=_ref(artifact.golden))

    @property
    def choices(self) -> tuple[desired.Choice, ...]:
        """All of them, as they are in the manifest."""
        return tuple(
            desired.Choice(artifact=_ref(one), golden=_ref(one.golden))
            for one in self.manifest.artifacts
        )

    @property
    def digest(self) -> str:
        """Of the artifact."""
        return self.choice.artifact.digest


def _ref(file: manifest.Artifact | manifest.Golden) -> desired.FileRef:
    return desired.FileRef(path=file.path, digest=file.digest, length=file.length)


def make_manifest(version: str, artifact: bytes, golden: bytes) -> manifest.Manifest:
    """The manifest of a release of the tiny model."""
    folder = f"tiny/{version}"
    io_spec = manifest.EngineIO(
        inputs=(manifest.TensorSpec(name="x", dtype=manifest.DType.FP32, shape=(1, WIDTH)),),
        outputs=(manifest.TensorSpec(name="y", dtype=manifest.DType.FP32, shape=(1, WIDTH)),),
    )
    entry = manifest.Artifact(
        path=f"{folder}/any.onnx",
        digest=hashlib.sha256(artifact).hexdigest(),
        length=len(artifact),
        kind=target.ArtifactKind.ONNX,
        precision=manifest.Precision.FP32,
        target=target.Target(name="any", arch=target.Arch.X86_64),
        io=io_spec,
        golden=manifest.Golden(
            path=f"{folder}/any.golden.npz",
            digest=hashlib.sha256(golden).hexdigest(),
            length=len(golden),
            samples=4,
            tolerance=1e-5,
        ),
    )
    counter = int(version.split(".", maxsplit=1)[0])
    return manifest.Manifest(model="tiny", version=version, counter=counter, artifacts=(entry,))


def publish(
    root: Path,
    version: str,
    *,
    artifact: bytes | None = None,
    golden: bytes | None = None,
    fallback: bytes | None = None,
) -> Release:
    """Put a release where a device finds its files; nobody signs it."""
    factor = float(version.split(".", maxsplit=1)[0])
    artifact = tiny_model(factor) if artifact is None else artifact
    golden = golden_set(factor) if golden is None else golden
    built = make_manifest(version, artifact, golden)
    entry = built.artifacts[0]
    _put(root, entry.path, artifact)
    _put(root, entry.golden.path, golden)
    if fallback is not None:
        built = _with_fallback(built, fallback)
        _put(root, built.artifacts[1].path, fallback)
    return Release(built, _put(root, f"tiny/{version}/manifest.json", built.encode()))


def _with_fallback(built: manifest.Manifest, fallback: bytes) -> manifest.Manifest:
    digest = hashlib.sha256(fallback).hexdigest()
    first = built.artifacts[0].model_copy(update={"fallback": (digest,)})
    spare = built.artifacts[0].model_copy(
        update={
            "path": f"{built.release}/spare.onnx",
            "digest": digest,
            "length": len(fallback),
        }
    )
    return built.model_copy(update={"artifacts": (first, spare)})


def _put(root: Path, path: str, data: bytes) -> desired.FileRef:
    digest = hashlib.sha256(data).hexdigest()
    folder, _, name = path.rpartition("/")
    file = root / "targets" / folder / f"{digest}.{name}"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    return desired.FileRef(path=path, digest=digest, length=len(data))


def want(
    *releases: Release,
    generation: int,
    gates: desired.Gates | None = None,
    probation: desired.Probation | None = None,
    policy: desired.Policy | None = None,
    slots: tuple[str, ...] = (SLOT,),
) -> VerifiedDesired:
    """A verified desired state: one release per slot."""
    document = desired.Desired(
        device="edge-1",
        fleet="demo",
        deployment_id=f"d-{generation}",
        issued=TIME,
        slots={
            slot: desired.SlotDesired(
                release=release.manifest.release,
                manifest=release.manifest_ref,
                choices=release.choices,
                gates=gates or desired.Gates(min_samples=10),
                probation=probation or desired.Probation(duration_s=0.05, min_samples=10),
            )
            for slot, release in zip(slots, releases, strict=True)
        },
        policy=policy or desired.Policy(deadline_s=60.0),
    )
    payload = payload_of(generation, document)
    return VerifiedDesired(
        desired=document,
        generation=generation,
        payload_sha256=hashlib.sha256(payload).hexdigest(),
        manifests={slot: release.manifest for slot, release in zip(slots, releases, strict=True)},
        floors={"image.targets": generation},
    )


def payload_of(generation: int, document: desired.Desired) -> bytes:
    """Bytes that stand for a signed document."""
    return f"{generation}:".encode() + document.encode()


@dataclass
class ListVerifier:
    """Vouches for the documents it was given, and for no other."""

    known: dict[str, VerifiedDesired] = field(default_factory=dict)
    refusal: TrustError | None = None

    async def verify(self, payload: bytes) -> VerifiedDesired:
        """Verify by looking it up."""
        if self.refusal is not None:
            raise self.refusal
        found = self.known.get(hashlib.sha256(payload).hexdigest())
        if found is None:
            raise TrustError(ReasonCode.SIGNATURE, "nobody signed this", final=False)
        return found


@dataclass
class FakeHost:
    """A machine with enough of everything."""

    profile: target.Profile = PROFILE
    disk_free_bytes: int = 10 * 1024**3
    memory_free_bytes: int = 10 * 1024**3

    def disk(self) -> Capacity:
        """The disk."""
        return Capacity(total_bytes=2 * self.disk_free_bytes, free_bytes=self.disk_free_bytes)

    def memory(self) -> Capacity:
        """The memory."""
        return Capacity(total_bytes=2 * self.memory_free_bytes, free_bytes=self.memory_free_bytes)

    def time_trusted(self) -> bool:
        """The clock."""
        return True


@dataclass
class EdgeDevice:
    """Everything of one agent that is not the network to the cloud.

    Attributes:
        changes: how often the state would have been reported.
    """

    state_dir: Path
    repository: Repository
    server: ServerControl
    host: FakeHost = field(default_factory=FakeHost)
    tuning: Tuning = QUICK
    clock: SystemClock = field(default_factory=SystemClock)
    changes: int = 0

    def __post_init__(self) -> None:
        self.journal = Journal(self.state_dir / "state.db")
        self.journal.begin_epoch()
        self.slots = SlotFiles(self.state_dir / "slots")
        self.store = BlobStore(self.state_dir)
        self.verifier = ListVerifier()
        clock = self.clock
        topics = DeviceTopics(fleet="demo", device="edge-1")
        self.reporter = Reporter(topics, self.journal, self.slots, self.host, clock)
        limits = DownloadLimits(
            read_s=5.0, backoff_base_s=0.01, backoff_cap_s=0.05, reserve_bytes=0, idle_attempts=3
        )
        engines = EngineEffects(self.slots, self.store, self.server, self.tuning)
        effects = Effects(
            self.journal,
            self.slots,
            self.store,
            Downloader(self.repository.url, self.store, limits=limits),
            engines,
            ProbationWatch(engines, self.server, clock, self.tuning),
            self.host,
            self.tuning,
            self.reporter,
            self._changed,
        )
        self.deployer = Deployer(
            self.journal,
            effects,
            self.verifier,
            self.reporter,
            self.tuning,
            self._changed,
            random.Random(1),  # noqa: S311 - jitter
        )

    def _changed(self) -> None:
        self.changes += 1

    async def receive(self, wanted: VerifiedDesired) -> None:
        """Deliver a desired state, as MQTT would."""
        self.verifier.known[wanted.payload_sha256] = wanted
        await self.deployer.on_desired(payload_of(wanted.generation, wanted.desired))

    def events(self, deployment_id: str) -> list[StatusEvent]:
        """Every status event of a deployment, in the order they would be sent."""
        entries = self.journal.pending(10_000)
        events = [StatusEvent.parse(entry.payload) for entry in entries]
        return [event for event in events if event.deployment_id == deployment_id]

    def finals(self, deployment_id: str) -> list[StatusEvent]:
        """The final status events of a deployment: one, if all is well."""
        return [event for event in self.events(deployment_id) if event.final]

    async def ended(self, deployment_id: str, timeout_s: float = 45.0) -> StatusEvent:
        """Wait for the final status."""
        await eventually(lambda: self.finals(deployment_id), f"end of {deployment_id}", timeout_s)
        return self.finals(deployment_id)[0]

    async def install(self, wanted: VerifiedDesired) -> None:
        """Deliver a desired state and see it succeed."""
        await self.receive(wanted)
        event = await self.ended(wanted.desired.deployment_id)
        assert event.outcome is Outcome.SUCCEEDED, event

    def committed(self) -> Mapping[str, str]:
        """The release that serves after a boot, by slot."""
        return {name: file.current.release for name, file in self.slots.read_all().items()}

    @asynccontextmanager
    async def running(self) -> AsyncIterator["EdgeDevice"]:
        """Run the deployer until the block ends; then it is cut off, as by a power cut."""
        task = asyncio.create_task(self.deployer.run(), name="deployer")
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.wait([task])
            self.journal.close()
            if not task.cancelled():
                task.result()
