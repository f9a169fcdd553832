"""The director: signs, per device, what it should run now."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from tuf.api.metadata import Snapshot, TargetFile, Targets, Timestamp
from tuf.api.serialization.json import JSONSerializer

from stoker_contract.codes import ReasonCode
from stoker_contract.desired import MEMBER, Desired
from stoker_contract.document import MAX_DOCUMENT_BYTES
from stoker_trust import durable
from stoker_trust.errors import TrustError
from stoker_trust.keys import Keyring, KeyRole
from stoker_trust.metadata import make_root, signed

DESIRED_LIFETIME: Final = timedelta(days=90)
# A director has targets only; TUF wants all four roles in a root, so one key stands for three.
_TOP_LEVEL: Final = dict.fromkeys(
    (Targets.type, Snapshot.type, Timestamp.type), KeyRole.DIRECTOR_TARGETS
)


class Director:
    """Signs desired states with the fleet's key."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    def create(self, repository: Path, now: datetime) -> None:
        """Make the director's root and put it where devices look for rotations.

        Does nothing where there already is one.
        """
        path = repository / "director" / "1.root.json"
        if path.exists():
            return
        anchor = self._keyring.anchor("director-root")
        if not anchor.exists():
            root = make_root(self._keyring, KeyRole.DIRECTOR_ROOT, _TOP_LEVEL, now)
            durable.write(anchor, root.to_bytes())
        durable.write(path, anchor.read_bytes())

    def sign(
        self,
        desired: Desired,
        generation: int,
        now: datetime,
        *,
        lifetime: timedelta = DESIRED_LIFETIME,
    ) -> bytes:
        """The signed document of one device, as it goes over MQTT.

        Raises:
            TrustError: ``TOO_LARGE``, it does not fit into a message.
        """
        targets = Targets(
            version=generation,
            expires=(now + lifetime).replace(microsecond=0),
            targets={
                path: TargetFile(ref.length, {"sha256": ref.digest}, path)
                for path, ref in desired.files().items()
            },
            unrecognized_fields={MEMBER: desired.to_member()},
        )
        metadata = signed(targets, self._keyring, KeyRole.DIRECTOR_TARGETS)
        data = metadata.to_bytes(JSONSerializer(compact=True))
        if len(data) > MAX_DOCUMENT_BYTES:
            detail = (
                f"the desired state of {desired.device} has {len(data)} bytes, at most "
                f"{MAX_DOCUMENT_BYTES} are allowed"
            )
            hint = "Give the release fewer artifacts per target, or the device fewer slots."
            raise TrustError(ReasonCode.TOO_LARGE, detail, hint=hint)
        return data
