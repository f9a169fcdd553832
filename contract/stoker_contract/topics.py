"""MQTT topic names. One writer per topic; ``{device}`` is also client id and certificate name."""

from dataclasses import dataclass

from stoker_contract.codes import ReasonCode
from stoker_contract.errors import ContractError

PREFIX = "stoker/v1"


@dataclass(frozen=True)
class DeviceTopics:
    """The topics of one device."""

    fleet: str
    device: str

    @property
    def root(self) -> str:
        """What all topics of the device begin with."""
        return f"{PREFIX}/{self.fleet}/{self.device}"

    @property
    def desired(self) -> str:
        """Cloud to device, retained: the signed desired state."""
        return f"{self.root}/desired"

    @property
    def get(self) -> str:
        """Device to cloud: publish my desired state again."""
        return f"{self.root}/get"

    @property
    def reported(self) -> str:
        """Device to cloud, retained: the full actual state."""
        return f"{self.root}/reported"

    @property
    def presence(self) -> str:
        """Device to cloud, retained: birth and last will."""
        return f"{self.root}/presence"

    @property
    def telemetry(self) -> str:
        """Device to cloud: latency histograms per window."""
        return f"{self.root}/telemetry"

    @property
    def notice(self) -> str:
        """Cloud to all, retained: slow down."""
        return f"{PREFIX}/{self.fleet}/notice"

    def status(self, deployment_id: str) -> str:
        """Device to cloud: one event per phase of a deployment."""
        return f"{self.root}/status/{deployment_id}"


def fleet_filter(fleet: str, what: str) -> str:
    """A subscription to one kind of message of every device of a fleet."""
    return f"{PREFIX}/{fleet}/+/{what}"


def split(topic: str) -> tuple[str, str, str]:
    """Take a device topic apart into fleet, device and the rest.

    Raises:
        ContractError: it is no topic of a device.
    """
    match topic.split("/", 4):
        case ["stoker", "v1", fleet, device, what]:
            return fleet, device, what
    raise ContractError(ReasonCode.MALFORMED, f"not a device topic: {topic[:200]}")
