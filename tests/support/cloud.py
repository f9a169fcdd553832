"""The cloud's side, for real: keys, image repository over HTTP, director, broker."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from stoker_contract import desired
from stoker_contract.reported import Reported
from stoker_contract.status import StatusEvent
from stoker_contract.topics import DeviceTopics
from stoker_trust.director import Director
from stoker_trust.image_repository import ImageRepository
from stoker_trust.initialise import init_dev
from stoker_trust.keys import Keyring
from support.documents import TIME
from support.edge_device import SLOT, Release, golden_set, make_manifest, tiny_model
from support.http_server import Repository, serving
from support.mosquitto import Mosquitto, Observer, running_mosquitto
from support.waiting import wait_until

TOPICS = DeviceTopics(fleet="demo", device="edge-1")


@dataclass
class Cloud:
    """Everything a device talks to over a network."""

    folder: Path
    keyring: Keyring
    repository: Repository
    broker: Mosquitto
    observer: Observer
    releases: dict[str, Release] = field(default_factory=dict)

    def release(self, version: str, *, artifact: bytes | None = None) -> Release:
        """Build and publish a release of the tiny model."""
        if version in self.releases:
            return self.releases[version]
        factor = float(version.split(".", maxsplit=1)[0])
        artifact = tiny_model(factor) if artifact is None else artifact
        golden = golden_set(factor)
        built = make_manifest(version, artifact, golden)
        folder = self.folder / "built" / version
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_bytes(built.encode())
        entry = built.artifacts[0]
        (folder / Path(entry.path).name).write_bytes(artifact)
        (folder / Path(entry.golden.path).name).write_bytes(golden)
        now = datetime.now(UTC)
        published = ImageRepository(self.repository.root, self.keyring).publish(folder, now)
        self.releases[version] = Release(built, published.manifest)
        return self.releases[version]

    def roll_out(
        self,
        release: Release,
        generation: int,
        probation: desired.Probation | None = None,
        gates: desired.Gates | None = None,
    ) -> str:
        """Sign and publish the desired state of the device; returns the deployment's id."""
        deployment_id = f"d-{generation}"
        document = desired.Desired(
            device=TOPICS.device,
            fleet=TOPICS.fleet,
            deployment_id=deployment_id,
            issued=TIME,
            slots={
                SLOT: desired.SlotDesired(
                    release=release.manifest.release,
                    manifest=release.manifest_ref,
                    choices=(release.choice,),
                    gates=gates or desired.Gates(min_samples=10),
                    probation=probation or desired.Probation(duration_s=0.5, min_samples=10),
                )
            },
        )
        payload = Director(self.keyring).sign(document, generation, datetime.now(UTC))
        self.observer.publish(TOPICS.desired, payload, retain=True)
        return deployment_id

    def events(self, deployment_id: str) -> list[StatusEvent]:
        """The status events the broker was given, as often as it was given them."""
        payloads = self.observer.payloads(TOPICS.status(deployment_id))
        return [StatusEvent.parse(payload) for payload in payloads]

    def finals(self, deployment_id: str) -> list[StatusEvent]:
        """The final ones, duplicates of a redelivery removed."""
        found = {e.encode(): e for e in self.events(deployment_id) if e.final}
        return list(found.values())

    def ended(self, deployment_id: str, timeout_s: float = 60) -> StatusEvent:
        """Wait for the final status."""
        what = f"end of {deployment_id}"
        wait_until(lambda: self.finals(deployment_id), timeout_s, what)
        return self.finals(deployment_id)[0]

    def reported(self) -> Reported | None:
        """What the device said last."""
        payloads = self.observer.payloads(TOPICS.reported)
        return Reported.parse(payloads[-1]) if payloads else None


@contextmanager
def running_cloud(folder: Path) -> Iterator[Cloud]:
    """A cloud that ends with the block."""
    root = folder / "repository"
    keyring, _ = init_dev(folder / "keys", root, datetime.now(UTC))
    with (
        serving(root) as repository,
        running_mosquitto(folder / "broker") as broker,
        Observer(broker.port) as observer,
    ):
        yield Cloud(folder, keyring, repository, broker, observer)


def write_agent_config(cloud: Cloud, path: Path, state_dir: Path, run_dir: Path) -> Path:
    """``agent.toml`` of a device of this cloud."""
    values: dict[str, dict[str, object]] = {
        "device": {"id": TOPICS.device, "fleet": TOPICS.fleet},
        "mqtt": {"host": "127.0.0.1", "port": cloud.broker.port},
        "repository": {"url": cloud.repository.url},
        "trust": {
            "image_root": str(cloud.keyring.anchor("image-root")),
            "director_root": str(cloud.keyring.anchor("director-root")),
            "allow_dev": True,
        },
        "paths": {"state_dir": str(state_dir), "run_dir": str(run_dir)},
        "server": {"http": "none"},
        "telemetry": {"interval_s": 1},
        "connection": {"base_s": 0.05, "cap_s": 0.2, "boot_jitter_s": 0},
    }
    lines = []
    for table, entries in values.items():
        lines.append(f"[{table}]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in entries.items()]
    path.write_text("\n".join(lines) + "\n")
    return path
