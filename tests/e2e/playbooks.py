"""Runs playbooks of the collection from here over SSH, and reads what they did."""

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from e2e.cache import CHECKOUT
from e2e.devices import Device
from e2e.site import CLOUD, CLOUD_ADDRESS, FLEET, Site
from e2e.wheelhouses import Wheelhouses

SITE: Final = "stoker.edge.site"
TIMEOUT_S: Final = 900
_ENVIRONMENT: Final = {
    "ANSIBLE_NOCOLOR": "1",
    "ANSIBLE_FORKS": "8",
    # Without the -C of the default: compressing wheels once more costs a minute, and saves nothing.
    "ANSIBLE_SSH_ARGS": "-o ControlMaster=auto -o ControlPersist=60s",
}
_RECAP: Final = re.compile(
    r"^(\S+)\s+: ok=\d+\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class Ran:
    """One run of a playbook."""

    changed: int
    failed: int
    hosts: int
    output: str

    @property
    def is_quiet(self) -> bool:
        """It reached somebody, and had nothing to do and nothing to complain about."""
        return bool(self.hosts) and not self.changed and not self.failed

    def __str__(self) -> str:
        """The recap in a few words."""
        return f"{self.hosts} hosts, changed={self.changed}, failed={self.failed}"


class Playbooks:
    """The control host of the fleet: inventory, certificate authority and roots of trust."""

    def __init__(self, site: Site, folder: Path) -> None:
        self._site = site
        self._folder = folder
        self._count = 0
        self.pki = folder / "pki"
        self.anchors = folder / "anchors"
        folder.mkdir()
        self.stoker("pki", "init", "--dir", str(self.pki), "--host", CLOUD_ADDRESS)

    def stoker(self, *arguments: str) -> str:
        """Run ``stoker`` here."""
        command = [sys.executable, "-m", "stoker_cli.main", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def run(
        self,
        playbook: str,
        wheels: Wheelhouses,
        *options: str,
        devices: dict[str, Device] | None = None,
        **variables: object,
    ) -> Ran:
        """Run a playbook over the cloud's node and these devices, or all."""
        devices = self._site.devices if devices is None else devices
        inventory = self._folder / "inventory.json"
        inventory.write_text(json.dumps(self._inventory(wheels, list(devices)), indent=2))
        (self._folder / "known_hosts").write_text(self._site.known_hosts)
        self._count += 1
        log = self._folder / f"ansible-{self._count}.log"
        with log.open("wb") as output:
            subprocess.run(
                [
                    *(CHECKOUT / "scripts/ansible", "ansible-playbook", "--inventory", inventory),
                    *("--extra-vars", json.dumps(variables), playbook, *options),
                ],
                env={**os.environ, **_ENVIRONMENT, **self._places()},
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                timeout=TIMEOUT_S,
                check=False,
            )
        return read_recap(log.read_text())

    def _places(self) -> dict[str, str]:
        """Where Ansible keeps what is ours: two runs have nodes of the same name and address."""
        return {
            "ANSIBLE_HOME": str(self._folder / "ansible"),
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(self._folder / "cp"),
        }

    def _inventory(self, wheels: Wheelhouses, devices: list[str]) -> dict[str, Any]:
        addresses = {node.name: {"ansible_host": node.address} for node in self._site.nodes}
        ssh = f"-o UserKnownHostsFile={self._folder}/known_hosts -o StrictHostKeyChecking=yes"
        variables = {
            "ansible_user": "root",
            "ansible_ssh_private_key_file": str(self._site.key),
            "ansible_ssh_common_args": ssh,
            "ansible_python_interpreter": "/usr/bin/python3",
            **self._broker_variables(),
            **self._fleet_variables(wheels),
            **self._agent_variables(wheels),
        }
        children = {
            "stoker_brokers": {"hosts": {CLOUD: addresses[CLOUD]}},
            "stoker_fleets": {"hosts": {CLOUD: {}}},
            "stoker_devices": {"hosts": {name: addresses[name] for name in devices}},
        }
        return {"all": {"vars": variables, "children": children}}

    def _broker_variables(self) -> dict[str, object]:
        return {"broker_pki_dir": str(self.pki), "broker_hosts": [CLOUD_ADDRESS]}

    def _fleet_variables(self, wheels: Wheelhouses) -> dict[str, object]:
        return {
            "fleet_name": FLEET,
            "fleet_broker_host": CLOUD_ADDRESS,
            "fleet_wheelhouse": str(wheels.cloud),
            "fleet_version": wheels.version,
            "fleet_pki_dir": str(self.pki),
            "fleet_dev_keys": True,
            "fleet_anchors_dir": str(self.anchors),
        }

    def _agent_variables(self, wheels: Wheelhouses) -> dict[str, object]:
        return {
            "agent_fleet": FLEET,
            "agent_broker_host": CLOUD_ADDRESS,
            "agent_repository_url": f"http://{CLOUD_ADDRESS}:8080",
            "agent_image_root": str(self.anchors / "image-root.json"),
            "agent_director_root": str(self.anchors / "director-root.json"),
            "agent_wheelhouse": str(wheels.device),
            "agent_version": wheels.version,
            "agent_pki_dir": str(self.pki),
            "agent_allow_dev": True,
            # Nobody has to spread the load of these few devices.
            "agent_connection_base_s": 0.5,
            "agent_connection_cap_s": 5.0,
            "agent_connection_boot_jitter_s": 0.0,
            "agent_telemetry_interval_s": 5.0,
        }


def read_recap(output: str) -> Ran:
    """What a playbook run did, from what it printed; a host that was not reached has failed."""
    recap = [tuple(map(int, found[1:])) for found in _RECAP.findall(output)]
    return Ran(
        changed=sum(changed for changed, _, _ in recap),
        failed=sum(unreachable + failed for _, unreachable, failed in recap),
        hosts=len(recap),
        output=output,
    )
