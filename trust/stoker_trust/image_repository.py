"""The image repository: a static folder that says what may ever run.

Every change is made in the order files, delegated targets, targets, snapshot, timestamp. Only the
last write makes it visible, so a reader never sees half a release, and after a crash the next
publish starts again from what is visible.
"""

import fcntl
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from stoker_contract.codes import ReasonCode
from stoker_contract.desired import FileRef
from stoker_trust import durable
from stoker_trust.errors import TrustError
from stoker_trust.keys import Keyring, KeyRole
from stoker_trust.metadata import (
    expiry,
    latest_root,
    make_root,
    read,
    require_signature,
    signed,
)
from stoker_trust.release_folder import MANIFEST, ReleaseFolder, read_release

COUNTER: Final = "counter"
_TOP_LEVEL: Final = {
    Targets.type: KeyRole.IMAGE_TARGETS,
    Snapshot.type: KeyRole.IMAGE_SNAPSHOT,
    Timestamp.type: KeyRole.IMAGE_TIMESTAMP,
}


@dataclass(frozen=True)
class Published:
    """A release of the repository."""

    release: str
    manifest: FileRef
    counter: int
    dev: bool
    changed: bool  # False: exactly this release had been published before


@dataclass
class _Visible:
    """What a reader sees now, signatures checked."""

    root: Root
    timestamp: Timestamp
    snapshot: Snapshot
    targets: Targets
    models: dict[str, Targets] = field(default_factory=dict)


class ImageRepository:
    """The folder, and the keys that sign it."""

    def __init__(self, folder: Path, keyring: Keyring) -> None:
        self._folder = folder
        self._metadata = folder / "metadata"
        self._keyring = keyring

    def create(self, now: datetime) -> None:
        """Make an empty repository. Does nothing where there already is one."""
        if (self._metadata / "timestamp.json").exists():
            return
        anchor = self._keyring.anchor("image-root")
        if not anchor.exists():
            root = make_root(self._keyring, KeyRole.IMAGE_ROOT, _TOP_LEVEL, now)
            durable.write(anchor, root.to_bytes())
        durable.write(self._metadata / "1.root.json", anchor.read_bytes())
        targets = Targets(version=1, expires=expiry(Targets.type, now))
        data = signed(targets, self._keyring, KeyRole.IMAGE_TARGETS).to_bytes()
        durable.write(self._metadata / "1.targets.json", data)
        snapshot = Snapshot(version=1, meta={"targets.json": _meta_file(1, data)})
        self._show(snapshot, Timestamp(version=1), now)

    def publish(self, release_folder: Path, now: datetime) -> Published:
        """Sign a release folder into the repository.

        With throw-away keys the manifest that is published says ``dev``.

        Raises:
            TrustError: the release is not whole (``MALFORMED``, ``DIGEST_MISMATCH``), this version
                was published with other bytes (``EQUIVOCATION``), or its counter is not above
                that of the last release (``BELOW_FLOOR``).
        """
        release = read_release(release_folder, dev=self._keyring.dev)
        with self._locked():
            visible = self._load()
            model = visible.models.get(release.manifest.model)
            entries = _target_files(release)
            changed = not _is_published(model, release, entries)
            if changed:
                self._place(release)
                self._sign(visible, release.manifest.model, entries, now)
        manifest = entries[release.manifest_path]
        return Published(
            release=release.manifest.release,
            manifest=_file_ref(manifest),
            counter=release.manifest.counter,
            dev=release.manifest.dev,
            changed=changed,
        )

    def refresh(self, now: datetime) -> None:
        """Sign snapshot and timestamp again, so that they do not expire."""
        with self._locked():
            visible = self._load()
            _step(visible.snapshot, visible.timestamp)
            self._show(visible.snapshot, visible.timestamp, now)

    def releases(self) -> tuple[Published, ...]:
        """Every release, in the order of models and counters."""
        visible = self._load()
        found = []
        for _, model in sorted(visible.models.items()):
            manifests = [f for p, f in model.targets.items() if p.endswith(f"/{MANIFEST}")]
            for manifest in sorted(manifests, key=_counter):
                release = manifest.path.removesuffix(f"/{MANIFEST}")
                dev = bool((manifest.custom or {}).get("dev"))
                counter = _counter(manifest)
                found.append(Published(release, _file_ref(manifest), counter, dev, changed=False))
        return tuple(found)

    @property
    def timestamp_expires(self) -> datetime:
        """Until when devices take this repository for fresh."""
        return self._load().timestamp.expires

    @contextmanager
    def _locked(self) -> Iterator[None]:
        if not self._metadata.is_dir():
            hint = "Make keys and repository with: stoker key init --dev"
            detail = f"{self._folder} is no image repository"
            raise TrustError(ReasonCode.ROOT_CHAIN, detail, hint=hint)
        with (self._keyring.directory / ".publish.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _load(self) -> _Visible:
        """Read what is visible. It is checked: we must not sign what somebody else put there."""
        root = latest_root(self._metadata).signed
        timestamp = read(self._metadata / "timestamp.json", Timestamp)
        require_signature(root, Timestamp.type, timestamp)
        version = timestamp.signed.snapshot_meta.version
        snapshot = read(self._metadata / f"{version}.snapshot.json", Snapshot)
        require_signature(root, Snapshot.type, snapshot)
        meta = snapshot.signed.meta
        targets = read(self._metadata / f"{meta['targets.json'].version}.targets.json", Targets)
        require_signature(root, Targets.type, targets)
        visible = _Visible(root, timestamp.signed, snapshot.signed, targets.signed)
        delegations = targets.signed.delegations
        for name in (delegations.roles if delegations else None) or {}:
            model = read(self._metadata / f"{meta[f'{name}.json'].version}.{name}.json", Targets)
            require_signature(targets.signed, name, model)
            visible.models[name] = model.signed
        return visible

    def _place(self, release: ReleaseFolder) -> None:
        targets = self._folder / "targets"
        for file in release.files:
            copied = durable.copy(file.source, targets / _prefixed(file.path, file.digest))
            if copied != (file.digest, file.length):
                detail = f"{file.source} changed while it was published"
                raise TrustError(ReasonCode.DIGEST_MISMATCH, detail)
        digest = hashlib.sha256(release.manifest_bytes).hexdigest()
        manifest = targets / _prefixed(release.manifest_path, digest)
        durable.write(manifest, release.manifest_bytes)

    def _sign(
        self, visible: _Visible, name: str, entries: dict[str, TargetFile], now: datetime
    ) -> None:
        meta = visible.snapshot.meta
        if (model := visible.models.get(name)) is not None:
            _step(model)
        else:
            model = Targets(version=1)
        model.targets.update(entries)
        meta[f"{name}.json"] = self._store(name, model, KeyRole.IMAGE_RELEASE, now)
        if name not in visible.models:
            _delegate(visible.targets, name, self._keyring)
            _step(visible.targets)
            stored = self._store(Targets.type, visible.targets, KeyRole.IMAGE_TARGETS, now)
            meta["targets.json"] = stored
        _step(visible.snapshot, visible.timestamp)
        self._show(visible.snapshot, visible.timestamp, now)

    def _store(self, name: str, targets: Targets, role: KeyRole, now: datetime) -> MetaFile:
        targets.expires = expiry(Targets.type, now)
        data = signed(targets, self._keyring, role).to_bytes()
        durable.write(self._metadata / f"{targets.version}.{name}.json", data)
        return _meta_file(targets.version, data)

    def _show(self, snapshot: Snapshot, timestamp: Timestamp, now: datetime) -> None:
        snapshot.expires = expiry(Snapshot.type, now)
        data = signed(snapshot, self._keyring, KeyRole.IMAGE_SNAPSHOT).to_bytes()
        durable.write(self._metadata / f"{snapshot.version}.snapshot.json", data)
        timestamp.expires = expiry(Timestamp.type, now)
        timestamp.snapshot_meta = _meta_file(snapshot.version, data)
        data = signed(timestamp, self._keyring, KeyRole.IMAGE_TIMESTAMP).to_bytes()
        durable.write(self._metadata / "timestamp.json", data)


def _step(*payloads: Targets | Snapshot | Timestamp) -> None:
    for payload in payloads:
        payload.version += 1


def _is_published(
    model: Targets | None, release: ReleaseFolder, entries: dict[str, TargetFile]
) -> bool:
    if model is None:
        return False
    known = model.targets.get(release.manifest_path)
    if known is not None:
        if known.hashes == entries[release.manifest_path].hashes:
            return True
        detail = f"{release.manifest.release} was published before with other bytes"
        hint = "A published version never changes; build it with a new --version."
        raise TrustError(ReasonCode.EQUIVOCATION, detail, hint=hint)
    last = max((_counter(file) for file in model.targets.values()), default=0)
    if release.manifest.counter <= last:
        detail = (
            f"{release.manifest.release} has counter {release.manifest.counter}, and "
            f"{release.manifest.model} was last published with {last}"
        )
        hint = f"Build it with --counter {last + 1} or more."
        raise TrustError(ReasonCode.BELOW_FLOOR, detail, hint=hint)
    return False


def _target_files(release: ReleaseFolder) -> dict[str, TargetFile]:
    entries = {
        file.path: TargetFile(file.length, {"sha256": file.digest}, file.path)
        for file in release.files
    }
    path = release.manifest_path
    manifest = TargetFile.from_data(path, release.manifest_bytes, ["sha256"])
    custom = {COUNTER: release.manifest.counter, "dev": release.manifest.dev}
    manifest.unrecognized_fields["custom"] = custom
    return {**entries, path: manifest}


def _delegate(targets: Targets, model: str, keyring: Keyring) -> None:
    if targets.delegations is None:
        targets.delegations = Delegations({}, roles={})
    threshold = keyring.thresholds.get(KeyRole.IMAGE_RELEASE, 1)
    role = DelegatedRole(model, [], threshold, terminating=True, paths=[f"{model}/*/*"])
    if targets.delegations.roles is None:
        raise TrustError(ReasonCode.UNSUPPORTED, "the targets are delegated by hash bins")
    targets.delegations.roles[model] = role
    for signer in keyring.signers(KeyRole.IMAGE_RELEASE):
        targets.add_key(signer.public_key, model)


def _counter(file: TargetFile) -> int:
    return int((file.custom or {}).get(COUNTER, 0))


def _file_ref(file: TargetFile) -> FileRef:
    return FileRef(path=file.path, digest=file.hashes["sha256"], length=file.length)


def _meta_file(version: int, data: bytes) -> MetaFile:
    return MetaFile.from_data(version, data, ["sha256"])


def _prefixed(path: str, digest: str) -> str:
    folder, _, name = path.rpartition("/")
    return f"{folder}/{digest}.{name}"
