"""What the commands of the cloud side say and return, run as a person runs them."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from stoker_contract.codes import Outcome, ReasonCode
from stoker_contract.desired import Desired
from stoker_contract.reported import Refusal
from support.documents import PROFILE, TIME
from support.fleet_site import FleetSite
from support.release_folders import make_release
from support.simulated_device import Ending, SimulatedDevice
from support.waiting import wait_until


def stoker(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "stoker_cli.main", *arguments],
        cwd=folder,
        env={**os.environ, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_from_keys_to_a_served_release(tmp_path: Path) -> None:
    """Key init, publish, list and serve work one after the other with their defaults."""
    make_release(tmp_path / "release")

    made = stoker(tmp_path, "key", "init", "--dev", "--json")
    published = stoker(tmp_path, "publish", "release")
    again = stoker(tmp_path, "publish", "release", "--json")
    listed = stoker(tmp_path, "repository", "list", "--json")

    assert [done.returncode for done in (made, published, again, listed)] == [0, 0, 0, 0]
    anchors = json.loads(made.stdout)["anchors"]
    assert all((tmp_path / path).is_file() for path in anchors.values())
    assert "Published digits/1.0.0 (dev), counter 1." in published.stdout
    assert json.loads(again.stdout)["changed"] is False
    (release,) = json.loads(listed.stdout)
    server = subprocess.Popen(
        [sys.executable, "-m", "stoker_cli.main", "repository", "serve", "--port", "0"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        found = re.search(r"http://\S+", server.stdout.readline())
        assert found is not None
        manifest = release["manifest"]
        folder, _, name = manifest["path"].rpartition("/")
        url = f"{found.group()}/targets/{folder}/{manifest['digest']}.{name}"
        with urlopen(url, timeout=10) as response:  # noqa: S310  our own server
            assert len(response.read()) == manifest["length"]
        server.send_signal(signal.SIGTERM)
        assert server.wait(10) == 0
    finally:
        server.kill()
        server.wait()
        assert server.stdout is not None
        server.stdout.close()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("key", "init"), "stoker key init --dev"),
        (("key", "status"), "stoker key init --dev"),
        (("publish", "release"), "stoker key init --dev"),
        (("repository", "serve"), "stoker key init --dev"),
        (("pki", "issue", "edge-1"), "stoker pki init"),
        (("pki", "issue", "Edge 1"), "can not be a device id"),
        (("device", "list"), 'fleet = "demo"'),
        (("fleet", "run"), "there is no fleet.toml"),
    ],
)
def test_what_is_missing_is_named_with_what_makes_it(
    tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    """Without keys, authority or configuration a command says what to do; no traceback."""
    done = stoker(tmp_path, *arguments)

    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ('port = "x"', "mqtt.port"),
        ('host = "broker.example"', "[mqtt.tls] is missing"),
        ("prot = 1", "mqtt.prot"),
        ("= 3", "fleet.toml"),
    ],
)
def test_a_wrong_configuration_says_where(tmp_path: Path, change: str, said: str) -> None:
    """A mistake in fleet.toml is named; TLS is asked for beyond loopback."""
    (tmp_path / "fleet.toml").write_text(
        f'fleet = "demo"\ndatabase = "d"\nkeys = "k"\nrepository = "r"\n[mqtt]\n{change}\n',
        encoding="utf-8",
    )

    done = stoker(tmp_path, "device", "list")

    assert done.returncode == 1
    assert said in done.stderr


@pytest.fixture
def devices(site: FleetSite) -> Iterator[list[SimulatedDevice]]:
    def dislike_v2(desired: Desired) -> Ending:
        if desired.slots["main"].release == "digits/2.0.0":
            return Ending(Outcome.FAILED_NO_CHANGE, ReasonCode.GOLDEN_FAIL, "7 of 10 agree")
        return Ending()

    site.start_controller()
    started = [
        SimulatedDevice(site.broker.port, "edge-1").start(),
        SimulatedDevice(site.broker.port, "edge-2", behave=dislike_v2).start(),
    ]
    site.publish("1.0.0", 1)
    site.publish("2.0.0", 2)
    site.wait_for("edge-1", "edge-2")
    yield started
    for device in started:
        device.stop()


def test_a_rollout_as_an_operator_sees_it(site: FleetSite, devices: list[SimulatedDevice]) -> None:
    """Create, watch, list and show tell the same story, by text, JSON and exit status."""
    made = site.stoker("rollout", "create", "digits/1.0.0", "--to", "site=berlin", "--slot", "main")
    good = site.stoker("rollout", "watch", "--timeout-s", "30")
    bad = site.stoker_json("rollout", "create", "digits/2.0.0", "--to", "all", "--slot", "main",
                           "--max-p99-ratio", "1.5", "--probation-s", "1")  # fmt: skip
    watched = site.stoker("rollout", "watch", bad["rollout_id"], "--timeout-s", "30", check=False)
    told = site.stoker_json("rollout", "watch", bad["rollout_id"], check=False)

    assert re.search(r"edge-1 +x86-64-vnni int8", made.stdout)
    assert "No controller" not in made.stdout
    assert len(re.findall("SUCCEEDED", good.stdout)) == 2
    assert watched.returncode == 1
    assert re.search(r"edge-2 +FAILED_NO_CHANGE GOLDEN_FAIL: 7 of 10 agree", watched.stdout)
    assert told["plan"]["max_p99_ratio"] == 1.5
    assert told["progress"]["outcomes"] == {"SUCCEEDED": 1, "FAILED_NO_CHANGE": 1}
    assert [device["code"] for device in told["devices"] if "code" in device] == ["GOLDEN_FAIL"]
    gates = devices[0].wait_for_generation(2).slots["main"].gates
    assert gates.max_p99_ratio_vs_active == 1.5
    shown = site.stoker("device", "show", "edge-2").stdout
    assert "digits/2.0.0 → main  FAILED_NO_CHANGE GOLDEN_FAIL: 7 of 10 agree" in shown
    listed = site.stoker_json("rollout", "list")
    assert [one["state"] for one in listed] == ["failed", "succeeded"]
    assert "main: digits/2.0.0" in site.stoker("device", "list").stdout


def test_what_a_device_does_not_take_is_shown(
    site: FleetSite, devices: list[SimulatedDevice]
) -> None:
    """Why a device waits is seen without a look into its log."""
    refusals = (
        Refusal(
            sha256="ab" * 32,
            generation=7,
            deployment_id="r7",
            code=ReasonCode.EXPIRED,
            detail="it is 2040 here",
            since=TIME,
        ),
        Refusal(sha256="cd" * 32, code=ReasonCode.SIGNATURE, detail="nobody signed", since=TIME),
    )
    reported = devices[0].reported().model_copy(update={"refusals": refusals})
    devices[0].publish(devices[0].topics.reported, reported, retain=True)
    wait_until(
        lambda: "does not take" in site.stoker("device", "show", "edge-1").stdout,
        what="the report arrived",
    )
    shown = site.stoker("device", "show", "edge-1").stdout
    told = site.stoker_json("device", "show", "edge-1")["reported"]["refusals"]

    assert f"does not take generation 7 since {TIME}: EXPIRED: it is 2040 here" in shown
    assert "does not take an unsigned document cdcdcdcdcdcd" in shown
    assert [refusal["code"] for refusal in told] == ["EXPIRED", "SIGNATURE"]


def test_a_device_can_not_steer_the_terminal(site: FleetSite) -> None:
    """Escape sequences in what a device says are not passed on to whoever looks at it."""
    escape = "\x1b]0;owned\x07\x1b[2J"
    site.start_controller()
    device = SimulatedDevice(
        site.broker.port,
        "edge-1",
        profile=PROFILE.model_copy(update={"cpu_model": escape}),
        behave=lambda _: Ending(Outcome.REJECTED, ReasonCode.UNSUPPORTED, f"no {escape}"),
    ).start()
    try:
        site.publish("1.0.0", 1)
        site.wait_for("edge-1")
        site.wait_until_over(site.roll_out("digits/1.0.0"))

        said = [
            site.stoker("device", "show", "edge-1").stdout,
            site.stoker("rollout", "watch", check=False).stdout,
        ]

        assert all("owned" in text and "\x1b" not in text for text in said)
    finally:
        device.stop()


def test_latency_as_an_operator_sees_it(site: FleetSite, devices: list[SimulatedDevice]) -> None:
    """Device and fleet latency show merged percentiles, as text and as JSON."""
    digest = "ab" * 32
    devices[0].send_latency("main", digest, "digits/1.0.0", [2.0] * 98 + [50.0] * 2)
    devices[1].send_latency("main", digest, "digits/1.0.0", [4.0] * 100)

    wait_until(
        lambda: [one["devices"] for one in site.stoker_json("fleet", "latency")] == [2],
        timeout_s=20,
        what="the windows arrived",
    )
    (fleet,) = site.stoker_json("fleet", "latency")
    (device,) = site.stoker_json("device", "latency", "edge-1", "--slot", "main")
    drawn = site.stoker("device", "latency", "edge-1").stdout

    assert (fleet["requests"], fleet["total"]["count"]) == (200, 200)
    assert fleet["total"]["p99_ms"] == pytest.approx(4.0, rel=0.012)
    assert device["total"]["p50_ms"] == pytest.approx(2.0, rel=0.012)
    assert device["total"]["p99_ms"] == pytest.approx(50.0, rel=0.012)
    assert device["digest"] == digest
    for kind in ("total", "queue", "compute"):
        assert kind in drawn
    assert re.search(r"█+ 98 ◀ p50 p95", drawn)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("create", "digits/9.0.0", "--to", "all", "--slot", "main"), "BAD_REQUEST"),
        (("create", "digits/1.0.0", "--to", "edge-9", "--slot", "main"), "BAD_REQUEST"),
        (("create", "digits/1.0.0", "--to", "site=paris", "--slot", "main"), "BAD_REQUEST"),
        (("create", "digits/1.0.0", "--to", "", "--slot", "main"), "BAD_REQUEST"),
        (("create", "digits/1.0.0", "--to", "all", "--slot", "Main"), "BAD_REQUEST"),
        (("watch", "r9"), "BAD_REQUEST"),
    ],
)
def test_a_rollout_that_can_not_be_is_refused_at_once(
    site: FleetSite, arguments: tuple[str, ...], code: str
) -> None:
    """An unknown release, device, slot or rollout is a reason code, and nothing is written."""
    site.publish("1.0.0", 1)

    done = site.stoker("rollout", *arguments, check=False)

    assert done.returncode == 1
    assert code in done.stderr
    assert site.stoker_json("rollout", "list") == []


def test_without_a_controller_it_is_said(site: FleetSite) -> None:
    """A rollout that nobody works on says so, and watching it ends with status 3."""
    controller = site.start_controller()
    device = SimulatedDevice(site.broker.port, "edge-1").start()
    try:
        site.publish("1.0.0", 1)
        site.wait_for("edge-1")
        controller.send_signal(signal.SIGTERM)
        assert controller.wait(10) == 0

        made = site.stoker("rollout", "create", "digits/1.0.0", "--to", "all", "--slot", "main")
        watched = site.stoker("rollout", "watch", "--timeout-s", "0", check=False)

        assert "No controller is running" in made.stdout
        assert "No controller is running" in watched.stdout
        assert "No controller is running" in site.stoker("device", "list").stderr
        assert watched.returncode == 3
    finally:
        device.stop()
