"""What the parts of the agent ask of each other. Each Protocol belongs to whoever calls it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from stoker_contract.control import (
    GoldenResult,
    Load,
    Loaded,
    Observed,
    Retire,
    Retired,
    RunGolden,
    ServerStatus,
    SlotTimeout,
    Swapped,
    TelemetrySnapshot,
    Warmed,
)
from stoker_contract.desired import Desired
from stoker_contract.manifest import Manifest


@dataclass(frozen=True, slots=True)
class OutboxEntry:
    """One message that has to reach the broker."""

    id: int
    topic: str
    payload: bytes


class Outbox(Protocol):
    """Messages that survive a restart until the broker has acknowledged them.

    Every method raises ``JournalError`` while the disk does not take or give them.
    """

    def pending(self, limit: int) -> Sequence[OutboxEntry]:
        """The oldest messages that were not acknowledged yet."""
        ...

    def delivered(self, entry_id: int) -> None:
        """Forget a message: the broker has acknowledged it."""
        ...

    def depth(self) -> int:
        """How many messages wait."""
        ...


class Floors(Protocol):
    """Numbers that never go down, kept where a torn cache can not lower them."""

    def generation(self) -> tuple[int, str]:
        """The accepted generation, and the SHA-256 of exactly its bytes; ``(0, "")`` at first."""
        ...

    def floor(self, name: str) -> int:
        """A floor by name, 0 when it was never raised.

        Names: ``image.root``, ``image.timestamp``, ``image.snapshot``, ``image.targets``,
        ``director.root``, ``counter.<model>``, and ``clock`` in seconds since 1970.
        """
        ...


@dataclass(frozen=True, slots=True)
class VerifiedDesired:
    """A desired state that both roots vouch for.

    Attributes:
        payload_sha256: of exactly the bytes that came over MQTT.
        manifests: by slot.
        floors: to be made durable together with the intent.
    """

    desired: Desired
    generation: int
    payload_sha256: str
    manifests: Mapping[str, Manifest]
    floors: Mapping[str, int] = field(default_factory=dict)


class DesiredVerifier(Protocol):
    """Decides whether a desired state may be acted on."""

    async def verify(self, payload: bytes) -> VerifiedDesired:
        """Verify a document that is not byte for byte the accepted one.

        Raises:
            TrustError: it is refused, or can not be verified now (``final`` is false).
        """
        ...


class ServerControl(Protocol):
    """What the server does when it is asked. Every method raises ``ControlError``."""

    async def status(self) -> ServerStatus:
        """What is loaded."""
        ...

    async def load(self, args: Load) -> Loaded:
        """Start a candidate beside the active engine."""
        ...

    async def warm(self, args: SlotTimeout) -> Warmed:
        """Run the candidate until its latency settles."""
        ...

    async def golden(self, args: RunGolden) -> GoldenResult:
        """Compare the candidate with its golden set, and its latency with the active engine."""
        ...

    async def swap(self, slot: str) -> Swapped:
        """Route new requests to the candidate; the old engine stays warm."""
        ...

    async def observe(self, slot: str) -> Observed:
        """Live traffic since the swap."""
        ...

    async def restore(self, slot: str) -> Swapped:
        """Route requests to the old engine again and close the candidate."""
        ...

    async def retire(self, args: Retire) -> Retired:
        """Drain and close the old engine."""
        ...

    async def abort(self, slot: str) -> None:
        """Close the candidate, if there is one."""
        ...

    async def telemetry(self) -> TelemetrySnapshot:
        """Cumulative counts since the server started."""
        ...
