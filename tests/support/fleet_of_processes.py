"""A whole fleet of real processes: keys, broker, repository, controller, two devices."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from stoker_cli.broker.process import Program
from stoker_cli.demo.lab import Device, Lab, LabSettings
from stoker_client.client import Client
from support.tiny_releases import MODEL, write_release

SLOT = "detector"
DEVICES = ("edge-1", "edge-2")
TIMEOUT_S = 60


class Fleet:
    """The lab, with what the tests ask of it again and again."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab

    def publish(self, version: str, *, factor: float | None = None) -> None:
        folder = self.lab.root / "releases" / version
        self.lab.publish(write_release(folder, version, factor=factor))

    def start_rollout(self, version: str, to: str = "all", *options: str) -> str:
        told = self.lab.stoker(
            *("rollout", "create", f"{MODEL}/{version}", "--to", to, "--slot", SLOT),
            *("--latency-samples", "20", "--probation-s", "0.5"),
            *("--probation-min-samples", "1", *options, "--json"),
        )
        rollout_id: str = json.loads(told)["rollout_id"]
        return rollout_id

    def outcomes(self, rollout_id: str) -> dict[str, tuple[str | None, str | None]]:
        """How each device ended: outcome and code."""
        told = self.lab.stoker(
            *("rollout", "watch", rollout_id, "--json", "--timeout-s", str(TIMEOUT_S)),
            accept=(0, 1, 3),
        )
        devices: list[dict[str, Any]] = json.loads(told)["devices"]
        return {one["device"]: (one.get("outcome"), one.get("code")) for one in devices}

    def roll_out(self, version: str, to: str = "all") -> dict[str, tuple[str | None, str | None]]:
        self.publish(version)
        return self.outcomes(self.start_rollout(version, to))


def ask(device: Device) -> float:
    """What the device multiplies by."""
    with Client(SLOT, socket=device.inference_socket) as client:
        answer = client.infer({"x": np.ones((1, 4), np.float32)})
    return float(answer["y"][0, 0])


@contextmanager
def running_fleet(root: Path, program: Program) -> Iterator[Fleet]:
    with Lab(root, LabSettings(broker=program)) as lab:
        lab.prepare()
        lab.broker.start()
        lab.serve_repository()
        controller = lab.start_controller()
        for name in DEVICES:
            lab.add_device(name).start()
        everyone = set(DEVICES)
        controller.wait_until(lambda: lab.online_devices() == everyone, "in touch with all")
        yield Fleet(lab)
