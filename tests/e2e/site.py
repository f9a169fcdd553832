"""Everything there is in a run: the network, the nodes on it, and how to reach them."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from e2e import links
from e2e.devices import Device
from e2e.fleet import Fleet
from e2e.links import Link
from e2e.nodes import Node, make_ssh_key
from e2e.releases import Releases

CLOUD: Final = "cloud"
CLOUD_NUMBER: Final = 10
CLOUD_ADDRESS: Final = f"{links.NETWORK}.{CLOUD_NUMBER}"
FLEET: Final = "e2e"


@dataclass
class Site:
    """The cloud's node and the devices.

    Attributes:
        folder: of this run; removed at its end.
        image: the system that every node boots.
        first_release: what ``stoker build`` made.
    """

    folder: Path
    image: Path
    first_release: Path
    devices: dict[str, Device] = field(default_factory=dict)

    def __post_init__(self) -> None:
        links.make_bridge()
        self.key = self.folder / "ssh_key"
        make_ssh_key(self.key)
        self.cloud = self._node(CLOUD, CLOUD_NUMBER)
        self.fleet = Fleet(self.cloud)
        self.releases = Releases(self.folder / "releases", self.first_release, self.fleet.publish)

    @property
    def nodes(self) -> list[Node]:
        """Every node there is."""
        return [self.cloud, *(device.node for device in self.devices.values())]

    def add_device(self, name: str) -> Device:
        """A bare box: a system, an SSH server, and nothing of ours. It is switched on."""
        device = Device(self._node(name, CLOUD_NUMBER + len(self.devices) + 1))
        self.devices[name] = device
        device.node.switch_on()
        return device

    def _node(self, name: str, number: int) -> Node:
        node = Node(
            name,
            Link(name, number),
            self.folder / name,
            self.image,
            self.key.with_suffix(".pub").read_text(),
        )
        node.make(f"{CLOUD_ADDRESS} {CLOUD}\n")
        return node

    @property
    def known_hosts(self) -> str:
        """The host keys of all nodes, for SSH."""
        return "".join(f"{node.address} {node.host_key}\n" for node in self.nodes)

    def write_ssh_config(self) -> None:
        """Write what ``ssh -F`` needs to log in to a node by its name."""
        (self.folder / "known_hosts").write_text(self.known_hosts)
        common = (
            f"Host *\n  User root\n  IdentityFile {self.key}\n  LogLevel ERROR\n"
            f"  UserKnownHostsFile {self.folder}/known_hosts\n"
        )
        hosts = (f"Host {node.name}\n  HostName {node.address}\n" for node in self.nodes)
        (self.folder / "ssh_config").write_text("".join(hosts) + common)

    def keep_evidence(self, folder: Path) -> None:
        """Write down what every node has logged, for whoever looks for a cause."""
        folder.mkdir(parents=True, exist_ok=True)
        for node in self.nodes:
            told = node.ask("journalctl", "--no-pager", "--output=short-precise")
            (folder / f"{node.name}.journal").write_text(told)
        states = {
            name: device.node.ask("systemctl", "--failed") for name, device in self.devices.items()
        }
        (folder / "failed.json").write_text(json.dumps(states, indent=2))
