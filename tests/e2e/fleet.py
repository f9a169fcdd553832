"""The fleet from where it is run: releases, rollouts and what devices said, on the cloud's node."""

import json
import shutil
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from e2e.devices import SLOT
from e2e.nodes import Node
from support.waiting import wait_until

MODEL: Final = "digits"
PROGRAM: Final = "/opt/stoker-fleet/current/bin/stoker"
STATE: Final = "/var/lib/stoker-fleet"
CONFIG: Final = "/etc/stoker-fleet/fleet.toml"
INBOX: Final = "tmp/releases"
QUICK: Final = ("--latency-samples", "30", "--probation-s", "2", "--probation-min-samples", "5")

# Every final word of every device, as it arrived; delivered twice counts once.
_FINAL: Final = """\
import json, sqlite3, sys
store = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True)
rows = store.execute("SELECT document FROM status_events")
documents = [json.loads(row[0]) for row in rows]
print(json.dumps([d for d in documents if d.get("final") and d["device"] == sys.argv[2]]))
"""


@dataclass(frozen=True, slots=True)
class End:
    """How a deployment ended on a device."""

    outcome: str | None
    code: str | None

    def __str__(self) -> str:
        """Both, or what there is."""
        return " ".join(word for word in (self.outcome or "no end", self.code) if word)


SUCCEEDED: Final = End("SUCCEEDED", None)


class Fleet:
    """The commands an operator has."""

    def __init__(self, node: Node) -> None:
        self.node = node

    def stoker(
        self, *arguments: str, timeout_s: float = 120, accept: Collection[int] = (0,)
    ) -> str:
        """Run ``stoker`` as the user that the keys belong to."""
        return self.node.run(
            *("setpriv", "--reuid=stoker-fleet", "--regid=stoker-fleet", "--init-groups"),
            *("env", f"STOKER_FLEET_CONFIG={CONFIG}", "COLUMNS=200", f"HOME={STATE}"),
            *(PROGRAM, *arguments),
            timeout_s=timeout_s,
            accept=accept,
        )

    def publish(self, release: Path) -> None:
        """Carry a release folder over and sign it."""
        inbox = self.node.root / INBOX
        shutil.copytree(release, inbox / release.name, dirs_exist_ok=True)
        folders = ("--keys", f"{STATE}/keys", "--repository", f"{STATE}/repository")
        self.stoker("publish", f"/{INBOX}/{release.name}", *folders)

    def known(self) -> dict[str, Any]:
        """Every device that was ever heard of."""
        told = json.loads(self.stoker("device", "list", "--json"))
        return {one["device"]: one for one in told}

    def online(self) -> set[str]:
        """The devices that are there and have reported."""
        told = self.known()
        return {name for name, one in told.items() if one["online"] and one["reported"]}

    def wait_until_online(self, *names: str, timeout_s: float = 90) -> None:
        """Wait until these devices are there."""
        wait_until(lambda: set(names) <= self.online(), timeout_s, f"{', '.join(names)} online")

    def roll_out(self, version: str, *devices: str, more: tuple[str, ...] = ()) -> str:
        """Begin a rollout that is over soon. Returns its id."""
        told = self.stoker(
            *("rollout", "create", f"{MODEL}/{version}", "--to", ",".join(devices)),
            *("--slot", SLOT, *QUICK, *more, "--json"),
        )
        return str(json.loads(told)["rollout_id"])

    def ends(self, rollout: str, *, timeout_s: float = 120) -> dict[str, End]:
        """Wait for a rollout to be over. Returns how each device ended."""
        told = self.stoker(
            *("rollout", "watch", rollout, "--json", "--timeout-s", str(timeout_s)),
            timeout_s=timeout_s + 60,
            accept=(0, 1, 3),  # "not all are well" and "not over" are answers here
        )
        devices: list[dict[str, Any]] = json.loads(told)["devices"]
        return {one["device"]: End(one.get("outcome"), one.get("code")) for one in devices}

    def final_words(self, device: str) -> Counter[str]:
        """How many different final statuses each deployment of a device has sent."""
        told = self.node.run("python3", "-c", _FINAL, f"{STATE}/fleet.db", device)
        return Counter(one["deployment_id"] for one in json.loads(told))
