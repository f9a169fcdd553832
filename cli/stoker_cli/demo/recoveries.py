"""``kill -9``: the agent in the middle of a download, and the server while it serves."""

import time
from typing import Final

from stoker_cli.demo.lab import Device, wait_for
from stoker_cli.demo.show import Show
from stoker_cli.demo.traffic import Traffic
from stoker_cli.demo.updates import SECOND
from stoker_cli.demo.variants import remake, unchanged
from stoker_contract.codes import Outcome
from stoker_contract.histogram import NS_PER_MS
from stoker_contract.manifest import Manifest

AGAIN: Final = "5.0.0"
DOWNLOAD_S: Final = 5.0
_KILL_AT_SHARE: Final = 0.4


def kill_agent_mid_download(show: Show) -> None:
    """A download that was cut goes on where it was; no byte that is durable is fetched again."""
    device = list(show.lab.devices.values())[-1]
    show.narrator.step(f"kill -9 the agent of {device.name} in the middle of a download")
    manifest = remake(
        show.release(SECOND), show.release(AGAIN), version=AGAIN, counter=5, edit=unchanged
    )
    show.publish(AGAIN)
    artifact = manifest.artifacts[0]
    whole = artifact.length + artifact.golden.length
    show.lab.serve_repository(rate_limit_bytes_per_s=int(artifact.length / DOWNLOAD_S))
    rollout = show.start_rollout(AGAIN, device.name)
    have = _kill_when_partly_there(show, device, manifest)
    show.lab.serve_repository()  # the link is quick again
    device.agent.start()
    result = show.finish_rollout(rollout)[0]
    fetched = result.measured.downloaded_bytes or 0
    megabytes = [f"{size / 1e6:.1f}" for size in (have, whole, fetched)]
    show.promise(
        "an agent that was killed in a download resumes it and finishes the update",
        f"{result.outcome}; {megabytes[0]} of {megabytes[1]} MB were there, "
        f"{megabytes[2]} MB fetched after",
        held=result.outcome is Outcome.SUCCEEDED and 0 < fetched < whole,
    )


def _kill_when_partly_there(show: Show, device: Device, manifest: Manifest) -> int:
    artifact = manifest.artifacts[0]
    enough = int(artifact.length * _KILL_AT_SHARE)

    def have() -> int:
        return device.partial_downloads().get(artifact.digest, 0)

    with show.narrator.waiting("downloading over a slow link"):
        wait_for("the download was half way", lambda: have() >= enough, timeout_s=60)
    pid = device.agent.pid
    device.agent.kill()
    at_kill = have()
    share = at_kill / artifact.length
    show.narrator.fact(f"killed process {pid} with {share:.0%} of the artifact on disk; restarted")
    return at_kill


def kill_server_while_serving(show: Show, traffic: Traffic) -> None:
    """A server that was killed serves again from what is on disk, before anybody tells it to."""
    device = show.first
    show.narrator.step(f"kill -9 the server of {device.name} while it serves")
    pid, engines = device.server.pid, device.engine_pids()
    before = traffic.window(time.monotonic_ns() - 2_000_000_000).releases[-1:]
    killed_ns = time.monotonic_ns()
    device.server.kill()
    device.start_server()  # as systemd does

    def answered() -> list[int]:
        window = traffic.window(killed_ns)
        return [a.due_ns + a.total_ns for a in window.answers if a.release in before]

    with show.narrator.waiting("waiting for an answer"):
        wait_for("the server answered again", answered, timeout_s=60)
    back_ms = (min(answered()) - killed_ns) / NS_PER_MS
    failed = len(traffic.window(killed_ns).failed)
    show.narrator.fact(
        f"killed process {pid} and with it engine {', '.join(map(str, engines))}; "
        f"{failed} requests found nobody meanwhile"
    )
    show.promise(
        "a server that was killed serves the committed release again, by itself",
        f"{', '.join(before)} after {back_ms:.0f} ms",
        held=bool(before),
    )
