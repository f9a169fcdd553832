"""Devices from the fleet's own store: what has ever reported is a host, its labels are groups."""

import json
import subprocess
from typing import Any

from ansible.errors import AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin, Constructable

DOCUMENTATION = """
name: fleet
short_description: Devices that the fleet's controller knows
description:
  - Runs C(stoker device list --json), here or through SSH, and makes a host of every device.
  - Each label becomes a group C(stoker_LABEL_VALUE); profile and slots become variables.
author: stoker contributors
extends_documentation_fragment: [constructed]
options:
  plugin:
    description: The name of this plugin.
    required: true
    choices: [stoker.edge.fleet]
  command:
    description: How C(stoker) is run; in the example below, on the controller's machine.
    type: list
    elements: str
    default: [stoker]
  config:
    description: The fleet's configuration, where the command runs.
    type: str
    default: /etc/stoker-fleet/fleet.toml
  group:
    description: The group that all devices are in.
    type: str
    default: stoker_devices
  timeout_s:
    description: How long the command may take.
    type: int
    default: 30
"""

EXAMPLES = """
plugin: stoker.edge.fleet
command: [ssh, root@cloud, runuser, -u, stoker-fleet, --, /opt/stoker-fleet/current/bin/stoker]
compose:
  ansible_host: stoker_device ~ '.edge.example.com'
groups:
  stoker_offline: not stoker_online
"""


class InventoryModule(BaseInventoryPlugin, Constructable):  # type: ignore[misc]
    """The plugin."""

    NAME = "stoker.edge.fleet"

    def verify_file(self, path: str) -> bool:
        """Whether a file is for this plugin."""
        return bool(super().verify_file(path)) and path.endswith(("stoker.yml", "stoker.yaml"))

    def parse(self, inventory: object, loader: object, path: str, cache: bool = True) -> None:  # noqa: FBT001, FBT002 - Ansible's signature
        """Fill the inventory."""
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        group = self.inventory.add_group(self.get_option("group"))
        for device in self._devices():
            self._add(device, group)

    def _devices(self) -> list[dict[str, Any]]:
        command = [*self.get_option("command"), "device", "list", "--json"]
        command += ["--config", self.get_option("config")]
        try:
            done = subprocess.run(  # noqa: S603 - the operator's own command
                command,
                check=False,
                capture_output=True,
                text=True,
                timeout=self.get_option("timeout_s"),
            )
            devices: list[dict[str, Any]] = json.loads(done.stdout)
        except (OSError, subprocess.SubprocessError) as error:
            message = f"{' '.join(command)}: {error}"
            raise AnsibleParserError(message) from error
        except ValueError:
            message = f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()}"
            raise AnsibleParserError(message) from None
        return devices

    def _add(self, device: dict[str, Any], group: str) -> None:
        name = self.inventory.add_host(device["device"], group)
        reported = device["reported"] or {}
        profile = reported.get("profile") or {}
        labels = profile.get("labels") or {}
        values = {
            "stoker_device": device["device"],
            "stoker_online": device["online"],
            "stoker_labels": labels,
            "stoker_profile": {key: value for key, value in profile.items() if key != "labels"},
            "stoker_slots": {
                slot: state.get("release") for slot, state in (reported.get("slots") or {}).items()
            },
        }
        for key, value in values.items():
            self.inventory.set_variable(name, key, value)
        for label, value in labels.items():
            of_label = self._sanitize_group_name(f"stoker_{label}_{value}")
            self.inventory.add_child(self.inventory.add_group(of_label), name)
        strict = self.get_option("strict")
        self._set_composite_vars(self.get_option("compose"), values, name, strict=strict)
        self._add_host_to_composed_groups(self.get_option("groups"), values, name, strict=strict)
        self._add_host_to_keyed_groups(self.get_option("keyed_groups"), values, name, strict=strict)
