"""A fleet's two signing sides in memory, served over real HTTP: the attack toolkit of trust tests.

It signs with python-tuf directly and not with our signing side, so that each test may also sign
what nobody in their right mind would.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization.json import JSONSerializer

from stoker_contract.desired import MEMBER, Choice, Desired, FileRef, SlotDesired
from stoker_contract.manifest import Artifact, Golden, Manifest, Precision
from stoker_contract.target import ArtifactKind
from support.documents import IO, TARGET

NOW = datetime(2026, 3, 1, tzinfo=UTC)
ROLES = (Root.type, Targets.type, Snapshot.type, Timestamp.type)
Answer = Callable[[BaseHTTPRequestHandler], None]


def digest(data: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def sign(signed: Root | Targets | Snapshot | Timestamp, *signers: CryptoSigner) -> bytes:
    """Signed metadata as it is served."""
    metadata: Metadata[Any] = Metadata(signed)
    for signer in signers:
        metadata.sign(signer, append=True)
    return metadata.to_bytes(JSONSerializer(compact=True))


def make_root(keys: dict[str, list[CryptoSigner]], version: int, threshold: int = 1) -> Root:
    """A root that trusts ``keys``; the threshold is of the root role."""
    root = Root(version=version, expires=NOW + timedelta(days=365), consistent_snapshot=True)
    for role, signers in keys.items():
        for signer in signers:
            root.add_key(signer.public_key, role)
    root.roles[Root.type].threshold = threshold
    return root


def new_keys(root_keys: int = 1) -> dict[str, list[CryptoSigner]]:
    """Fresh keys for every role."""
    keys = {role: [CryptoSigner.generate_ed25519()] for role in ROLES}
    keys[Root.type] = [CryptoSigner.generate_ed25519() for _ in range(root_keys)]
    return keys


@dataclass(frozen=True)
class Release:
    """A release and the bytes of its files, by path."""

    manifest: Manifest
    files: dict[str, bytes]

    @property
    def manifest_path(self) -> str:
        """Where its manifest is."""
        return f"{self.manifest.release}/manifest.json"

    def ref(self, path: str) -> FileRef:
        """A file as a desired state names it."""
        data = self.files[path]
        return FileRef(path=path, digest=digest(data), length=len(data))

    def slot(self) -> SlotDesired:
        """A slot that asks for all of it."""
        return SlotDesired(
            release=self.manifest.release,
            manifest=self.ref(self.manifest_path),
            choices=tuple(
                Choice(artifact=self.ref(a.path), golden=self.ref(a.golden.path))
                for a in self.manifest.artifacts
            ),
        )


def make_release(version: str = "1.0.0", model: str = "photos", **changes: Any) -> Release:  # noqa: ANN401 - fields of a manifest
    """A small release; ``changes`` are fields of its manifest."""
    artifact = f"artifact of {model} {version}".encode()
    golden = f"golden set of {model} {version}".encode()
    folder = f"{model}/{version}"
    files = {f"{folder}/x86.onnx": artifact, f"{folder}/x86.golden.npz": golden}
    described = Artifact(
        path=f"{folder}/x86.onnx",
        digest=digest(artifact),
        length=len(artifact),
        kind=ArtifactKind.ONNX,
        precision=Precision.FP32,
        target=TARGET,
        io=IO,
        golden=Golden(
            path=f"{folder}/x86.golden.npz",
            digest=digest(golden),
            length=len(golden),
            samples=4,
            tolerance=0.01,
        ),
    )
    values = {"model": model, "version": version, "counter": 1, "artifacts": (described,)}
    manifest = Manifest(**{**values, **changes})
    files[f"{folder}/manifest.json"] = manifest.encode()
    return Release(manifest, files)


@dataclass
class Fleet:
    """Both signing sides, and what the web server has.

    Attributes:
        files: by path, as served; swap in an older copy to roll the mirror back.
        answers: misbehaviour by path, instead of a file.
    """

    image_keys: dict[str, list[CryptoSigner]] = field(default_factory=new_keys)
    director_keys: dict[str, list[CryptoSigner]] = field(default_factory=new_keys)
    model_keys: dict[str, CryptoSigner] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    answers: dict[str, Answer] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    now: datetime = NOW
    targets: Targets = field(default_factory=lambda: Targets(expires=NOW + timedelta(days=365)))
    models: dict[str, Targets] = field(default_factory=dict)
    snapshot: Snapshot = field(default_factory=lambda: Snapshot(expires=NOW + timedelta(days=90)))
    timestamp: Timestamp = field(
        default_factory=lambda: Timestamp(expires=NOW + timedelta(days=30))
    )

    def __post_init__(self) -> None:
        self.image_root = make_root(self.image_keys, 1)
        self.director_root = make_root(self.director_keys, 1)
        self.files["metadata/1.root.json"] = sign(self.image_root, *self.image_keys["root"])
        self.files["director/1.root.json"] = sign(self.director_root, *self.director_keys["root"])
        self.show()

    def anchors(self, folder: Path) -> tuple[Path, Path]:
        """What a device is provisioned with: image root and director root."""
        folder.mkdir(parents=True, exist_ok=True)
        image, director = folder / "image-root.json", folder / "director-root.json"
        image.write_bytes(self.files["metadata/1.root.json"])
        director.write_bytes(self.files["director/1.root.json"])
        return image, director

    def publish(self, release: Release, *, below: str | None = None) -> Release:
        """Put a release into the image repository; ``below`` is the role that signs it."""
        model = below or release.manifest.model
        if model not in self.models:
            self._delegate(model)
        signed = self.models[model]
        for path, data in release.files.items():
            signed.targets[path] = TargetFile(len(data), {"sha256": digest(data)}, path)
            folder, _, name = path.rpartition("/")
            self.files[f"targets/{folder}/{digest(data)}.{name}"] = data
        self.show()
        return release

    def show(self) -> None:
        """Sign everything again, one version up, and serve it."""
        meta = self.snapshot.meta
        meta["targets.json"] = self._store(Targets.type, self.targets, self.image_keys["targets"])
        for name, model in self.models.items():
            meta[f"{name}.json"] = self._store(name, model, [self.model_keys[name]])
        self.timestamp.snapshot_meta = self._store(
            Snapshot.type, self.snapshot, self.image_keys["snapshot"]
        )
        self.timestamp.version += 1
        self.files["metadata/timestamp.json"] = sign(self.timestamp, *self.image_keys["timestamp"])

    def rotate_image_keys(self, *roles: str) -> None:
        """Give roles of the image repository new keys, by a new root."""
        old_root_keys = list(self.image_keys[Root.type])
        for role in roles:
            self.image_keys[role] = [CryptoSigner.generate_ed25519()]
        version = self.image_root.version + 1
        self.image_root = make_root(self.image_keys, version)
        signers = {id(s): s for s in (*old_root_keys, *self.image_keys[Root.type])}
        self.files[f"metadata/{version}.root.json"] = sign(self.image_root, *signers.values())

    def rotate_director_key(self, *, sign_with_old: bool = True) -> None:
        """Give the director a new key, by a new root."""
        self.director_keys[Targets.type] = [CryptoSigner.generate_ed25519()]
        version = self.director_root.version + 1
        self.director_root = make_root(self.director_keys, version)
        signers = self.director_keys[Root.type] if sign_with_old else new_keys()[Root.type]
        self.files[f"director/{version}.root.json"] = sign(self.director_root, *signers)

    def desire(self, release: Release, generation: int = 1, **changes: Any) -> bytes:  # noqa: ANN401 - fields of a desired state
        """A signed desired state that asks for a release."""
        return self.sign_desired(self.desired(release, **changes), generation)

    def desired(self, release: Release, **changes: Any) -> Desired:  # noqa: ANN401 - as above
        """A desired state that asks for a release; ``changes`` are fields of it."""
        values: dict[str, Any] = {
            "device": "edge-1",
            "fleet": "demo",
            "deployment_id": "rollout-1",
            "issued": self.now.isoformat(),
            "slots": {"detector": release.slot()},
        }
        return Desired(**{**values, **changes})

    def sign_desired(
        self,
        desired: Desired,
        generation: int = 1,
        *,
        signers: list[CryptoSigner] | None = None,
        lifetime: timedelta = timedelta(days=7),
        targets: dict[str, TargetFile] | None = None,
    ) -> bytes:
        """A desired state as the director signs it."""
        if targets is None:
            targets = {
                path: TargetFile(ref.length, {"sha256": ref.digest}, path)
                for path, ref in desired.files().items()
            }
        signed = Targets(
            version=generation,
            expires=self.now + lifetime,
            targets=targets,
            unrecognized_fields={MEMBER: desired.to_member()},
        )
        return sign(signed, *(signers or self.director_keys[Targets.type]))

    def _delegate(self, model: str) -> None:
        signer = self.model_keys.setdefault(model, CryptoSigner.generate_ed25519())
        if self.targets.delegations is None:
            self.targets.delegations = Delegations({}, {})
        roles = self.targets.delegations.roles
        assert roles is not None
        # Release folders are `model/version/file`.
        roles[model] = DelegatedRole(model, [], 1, terminating=True, paths=[f"{model}/*/*"])
        self.targets.add_key(signer.public_key, model)
        self.models[model] = Targets(expires=self.now + timedelta(days=365))

    def _store(
        self, name: str, signed: Targets | Snapshot, signers: list[CryptoSigner]
    ) -> MetaFile:
        signed.version += 1
        data = sign(signed, *signers)
        self.files[f"metadata/{signed.version}.{name}.json"] = data
        return MetaFile(signed.version, len(data), {"sha256": digest(data)})


@contextmanager
def served(fleet: Fleet) -> Iterator[str]:
    """The URL of a web server on the loopback that serves ``fleet.files``."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.lstrip("/")
            fleet.requests.append(path)
            if path in fleet.answers:
                fleet.answers[path](self)
                return
            data = fleet.files.get(path)
            self.send_response(200 if data is not None else 404)
            self.send_header("Content-Length", str(len(data or b"")))
            self.end_headers()
            self.wfile.write(data or b"")

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
