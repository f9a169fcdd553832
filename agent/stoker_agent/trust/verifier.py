"""Verifies a desired state against both roots, in the order that the trust design demands."""

import asyncio
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from tuf.api.metadata import Root, TargetFile

from stoker_agent.clock import Clock
from stoker_agent.config import Config
from stoker_agent.core.ports import Floors, VerifiedDesired
from stoker_agent.core.trust import (
    Addressee,
    CheckedDesired,
    Claim,
    DirectorFloors,
    check_desired,
    check_image_target,
    check_manifest,
    check_release,
    parse_time,
)
from stoker_agent.errors import TrustError
from stoker_agent.trust.director import DirectorRoots
from stoker_agent.trust.fetch import BoundedFetcher, FetchLimits
from stoker_agent.trust.image import ImageRepository
from stoker_contract.codes import ReasonCode
from stoker_contract.desired import FileRef
from stoker_contract.errors import ContractError
from stoker_contract.manifest import Manifest

MAX_MANIFEST_BYTES: Final = 1024 * 1024
ROOT_REFRESH_INTERVAL_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class TrustSettings:
    """What the verifier needs to know of ``agent.toml``."""

    me: Addressee
    url: str
    image_root: Path
    director_root: Path
    cache: Path
    allow_dev: bool = False

    @classmethod
    def of(cls, config: Config) -> "TrustSettings":
        """The settings that ``agent.toml`` asks for."""
        return cls(
            me=Addressee(config.device.id, config.device.fleet),
            url=config.repository.url,
            image_root=config.trust.image_root,
            director_root=config.trust.director_root,
            cache=config.paths.state_dir / "tuf",
            allow_dev=config.trust.allow_dev,
        )


class Verifier:
    """Implements ``DesiredVerifier``. One verification at a time, in a thread."""

    def __init__(
        self,
        settings: TrustSettings,
        floors: Floors,
        clock: Clock,
        limits: FetchLimits = FetchLimits(),  # noqa: B008 - frozen
    ) -> None:
        self._settings = settings
        self._floors = floors
        self._clock = clock
        self._fetcher = BoundedFetcher(limits)
        self._roots = DirectorRoots(
            settings.director_root, settings.cache / "director", settings.url, self._fetcher
        )
        self._asked_s: float | None = None
        self._busy = threading.Lock()

    async def verify(self, payload: bytes) -> VerifiedDesired:
        """Verify a document; see ``DesiredVerifier``.

        Raises:
            TrustError: it is refused, or can not be verified now (``final`` is false).
        """
        try:
            return await asyncio.to_thread(self.verify_now, payload)
        except asyncio.CancelledError:
            self._fetcher.give_up()  # else the process could not end before a slow mirror does
            raise

    def verify_now(self, payload: bytes) -> VerifiedDesired:
        """As :meth:`verify`, blocking.

        Raises:
            TrustError: as :meth:`verify`.
        """
        with self._busy:  # a verification that was given up may still be running
            self._fetcher.begin()
            now = self._now()
            checked, root = self._check(payload, now)
            try:
                return self._verify_images(checked, root, now)
            except TrustError as error:
                # So that it can be reported which deployment this is about.
                raise checked.claim.refuse(error.code, error.detail, final=error.final) from None

    def _now(self) -> datetime:
        """The system's time, or what was signed, whichever is later."""
        seconds = max(self._clock.unix_s(), self._floors.floor("clock"))
        return datetime.fromtimestamp(seconds, UTC)

    def _check(self, payload: bytes, now: datetime) -> tuple[CheckedDesired, Root]:
        """Check the document with the newest director root there is.

        A signature that holds is checked again with a root that was just refreshed, since its
        key may have been revoked. Garbage must not cost a request each, so the root is refreshed
        for its sake once a minute only. A bad signature is never final: the root that makes it
        good may be late.
        """
        known = self._roots.current().signed
        try:
            self._check_with(known, payload, now)
        except TrustError as error:
            if error.code not in {ReasonCode.SIGNATURE, ReasonCode.ROOT_CHAIN}:
                raise
            if error.code is ReasonCode.SIGNATURE and not self._may_ask():
                raise TrustError(error.code, error.detail, final=False) from None
        hindrance = self._roots.refresh()
        newest = self._roots.current().signed
        try:
            checked = self._check_with(newest, payload, now)
        except TrustError as error:
            if error.code is not ReasonCode.SIGNATURE:
                raise
            hint = f"; the root chain was not refreshed ({hindrance.detail})" if hindrance else ""
            raise TrustError(error.code, error.detail + hint, final=False) from None
        if newest.is_expired(now):
            detail = f"the director's root expired at {newest.expires}; publish a new one"
            raise checked.claim.refuse(ReasonCode.EXPIRED, detail, final=False)
        return checked, newest

    def _check_with(self, root: Root, payload: bytes, now: datetime) -> CheckedDesired:
        floor = self._floors.floor("director.root")
        if root.version < floor:
            detail = f"the director's root is {root.version}, this device has seen {floor}"
            raise TrustError(ReasonCode.ROOT_CHAIN, detail, final=False)
        floors = DirectorFloors(*self._floors.generation())
        return check_desired(payload, root, self._settings.me, floors, now)

    def _may_ask(self) -> bool:
        """Whether the repository may be asked for a newer root for the sake of a bad signature."""
        now_s, asked_s = self._clock.monotonic_s(), self._asked_s
        if asked_s is not None and now_s - asked_s < ROOT_REFRESH_INTERVAL_S:
            return False
        self._asked_s = now_s
        return True

    def _verify_images(self, checked: CheckedDesired, root: Root, now: datetime) -> VerifiedDesired:
        settings, claim = self._settings, checked.claim
        images = ImageRepository(
            settings.image_root, settings.cache / "image", settings.url, self._fetcher, now
        )
        floors = images.refresh(self._floors)
        targets: dict[str, TargetFile] = {}
        for path, ref in checked.files.items():
            targets[path] = check_image_target(ref, images.target(path), claim)
        manifests: dict[str, Manifest] = {}
        for name, slot in checked.desired.slots.items():
            manifest = self._manifest(images, slot.manifest, targets[slot.manifest.path], claim)
            check_manifest(name, slot, manifest, claim)
            counter = f"counter.{manifest.model}"
            floor = self._floors.floor(counter)
            check_release(manifest, claim, counter_floor=floor, allow_dev=settings.allow_dev)
            floors[counter] = max(floors.get(counter, floor), manifest.min_counter)
            manifests[name] = manifest
        floors["director.root"] = root.version
        floors["clock"] = self._signed_time(checked, images)
        return VerifiedDesired(
            checked.desired, claim.generation, checked.payload_sha256, manifests, floors
        )

    def _manifest(
        self, images: ImageRepository, ref: FileRef, target: TargetFile, claim: Claim
    ) -> Manifest:
        if ref.length > MAX_MANIFEST_BYTES:
            detail = f"{ref.path} has {ref.length} bytes, at most {MAX_MANIFEST_BYTES} are read"
            raise claim.refuse(ReasonCode.TOO_LARGE, detail)
        try:
            return Manifest.parse(images.download(ref, target), max_bytes=MAX_MANIFEST_BYTES)
        except ContractError as error:
            raise claim.refuse(error.code, error.detail) from None

    def _signed_time(self, checked: CheckedDesired, images: ImageRepository) -> int:
        """The latest time that both repositories have signed, in seconds since 1970.

        Not what the director says alone: with a stolen key it could say 2040, and everything
        would be expired for ever.
        """
        issued = parse_time(checked.desired.issued)
        if issued is None:
            return 0
        return int(min(issued, checked.expires, images.timestamp_expires).timestamp())
