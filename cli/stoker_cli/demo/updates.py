"""The good path: build two releases, start a fleet, and exchange a model under load."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from stoker_cli.demo.lab import wait_for
from stoker_cli.demo.show import MODEL, SLOT, Result, Show
from stoker_cli.demo.traffic import Frames, Traffic, Window, retired_answers
from stoker_cli.demo.variants import hot_frames
from stoker_contract.codes import Outcome
from stoker_contract.manifest import Manifest, Precision

FIRST: Final = "1.0.0"
SECOND: Final = "2.0.0"
ENTRY_POINTS: Final = ("examples/photos/model.py:factory", "examples/photos/data.py:dataset")
SITES: Final = ("berlin", "lagos", "osaka")
# Crops of photographs without labels compare answers with those of FP32: an answer that changes
# from wrong to right counts as a loss, and few samples make the bound wide.
UNLABELLED_BUDGET_POINTS: Final = 8.0
UNLABELLED_SAMPLES: Final = 200
LABELLED_BUDGET_POINTS: Final = 1.0
STEADY_S: Final = 3.0
# A busy machine shares fewer pages between processes, which counts as memory of its own.
MEMORY_TOLERANCE: Final = 1.25


def build_releases(show: Show) -> None:
    """EfficientNet-Lite0 as it was trained, then quantised: two releases of one model."""
    show.narrator.step("Build: EfficientNet-Lite0 with its published weights")
    show.narrator.fact(f"{FIRST}: FP32, what one has after the export; it is built meanwhile")
    first = _command(show, FIRST, counter=1, extra=("--precision", "fp32", "--latency-s", "0"))
    show.say(*first)
    show.narrator.fact(f"{SECOND}: the fastest candidate that passes its gates")
    second = _command(show, SECOND, counter=2, extra=("--quick",))
    with ThreadPoolExecutor(1) as pool:
        # nothing of it is timed, and the second takes longer to get that far
        meanwhile = pool.submit(show.lab.stoker, *first)
        show.stoker(*second, show=True)
        with show.narrator.waiting(f"building {FIRST}"):
            meanwhile.result()
    manifest = Manifest.parse((show.release(SECOND) / "manifest.json").read_bytes())
    artifact = manifest.artifacts[0]
    speedup = artifact.latency.speedup_vs_eager if artifact.latency else None
    if artifact.precision is Precision.INT8 and speedup and artifact.accuracy:
        loss = f"{artifact.accuracy.loss * 100:.2f} points of {artifact.accuracy.metric} lost"
        show.promise(
            "INT8 passes its accuracy gate and is faster than PyTorch as it comes",
            f"{speedup:.1f}x, {loss} on {artifact.accuracy.samples} samples",
            held=speedup > 1,
        )
    else:
        show.narrator.fact("No INT8 candidate passed its gates on this machine: FP32 ships again.")


def _command(show: Show, version: str, *, counter: int, extra: tuple[str, ...]) -> tuple[str, ...]:
    model, data = (str(_root() / entry) for entry in ENTRY_POINTS)
    photos = show.options.photos
    given = ("--data-arg", f"folder={photos}") if photos else ()
    samples = () if photos else ("--samples", str(UNLABELLED_SAMPLES))
    budget = LABELLED_BUDGET_POINTS if photos else UNLABELLED_BUDGET_POINTS
    return (
        *("build", "--model", model, "--data", data, *given, "--name", MODEL),
        *("--version", version, "--counter", str(counter), "--targets", this_target()),
        *("--budget", str(budget), *samples, *extra, "--output", str(show.release(version))),
    )


def _root() -> Path:
    return Path(__file__).parents[3]


def this_target() -> str:
    """The target that this machine is."""
    flags = Path("/proc/cpuinfo").read_text().split()
    vnni = {"avx512_vnni", "avx_vnni"} & set(flags)
    return "x86-64-vnni" if vnni else "x86-64-v3"


def start_fleet(show: Show) -> None:
    """Broker, repository, controller, and the devices."""
    lab, narrator = show.lab, show.narrator
    broker = lab.broker
    how = "client certificates, access by name" if broker.tls else "MQTT 3.1.1, no TLS"
    narrator.step(f"A fleet of {show.options.device_count}: agent and server for each device")
    with narrator.waiting("starting broker, repository, controller and devices"):
        broker.start()
        lab.serve_repository()
        controller = lab.start_controller()
        for number in range(show.options.device_count):
            site = SITES[number % len(SITES)]
            lab.add_device(f"edge-{number + 1}", site=site).start()
        controller.wait_until(lambda: _all_online(show), "in touch with all devices")
    narrator.fact(f"broker: {broker.program}, {how}; repository: static files over HTTP")
    for name, device in lab.devices.items():
        narrator.fact(f"{name}: site={device.labels['site']}, online")


def _all_online(show: Show) -> bool:
    online = show.lab.online_devices()
    return set(show.lab.devices) <= online


def roll_out_first(show: Show) -> None:
    """The first release, to devices that serve nothing yet."""
    show.narrator.step(f"Roll out {MODEL}/{FIRST} to all")
    show.publish(FIRST)
    results = show.finish_rollout(show.start_rollout(FIRST, "all"))
    show.promise(
        "every device proves the first release and commits it",
        _tally(results),
        held=_all_succeeded(show, results),
    )


def start_load(show: Show) -> Traffic:
    """One application on the first device that sends at a fixed rate, whatever happens."""
    path = show.lab.root / "frames.npy"
    tensor = hot_frames(show.release(FIRST), path)
    frames = Frames(path, SLOT, tensor)
    traffic = Traffic(show.lab, show.first, frames, rate_hz=show.options.rate_hz)
    traffic.process.start()
    wait_for("the load got an answer", traffic.answers, timeout_s=30)
    return traffic


def roll_out_second(show: Show, traffic: Traffic) -> None:
    """The quantised release, while requests keep coming."""
    narrator, device = show.narrator, show.first
    narrator.step(
        f"Roll out {MODEL}/{SECOND} under load: {traffic.rate_hz:g} requests/s, open loop"
    )
    show.publish(SECOND)
    start_ns = time.monotonic_ns()
    with narrator.waiting(f"measuring {device.name} before"):
        time.sleep(STEADY_S)
    memory_before = device.memory_bytes()
    rollout_ns = time.monotonic_ns()
    results = show.finish_rollout(show.start_rollout(SECOND, "all"))
    done_ns = time.monotonic_ns()
    with narrator.waiting(f"measuring {device.name} after"):
        time.sleep(STEADY_S)
    before = traffic.window(start_ns, rollout_ns)
    during = traffic.window(rollout_ns, done_ns)
    after = traffic.window(done_ns)
    _show_windows(show, before, during, after)
    memory_after = device.memory_bytes()
    megabytes = f"{memory_before / 1e6:.0f} → {memory_after / 1e6:.0f} MB"
    narrator.fact(f"memory of server and engines on {device.name}: {megabytes}")
    show.promise(
        "every device proves the second release and commits it",
        _tally(results),
        held=_all_succeeded(show, results),
    )
    _promise_nothing_lost(show, traffic.window(start_ns))
    left = len(device.engine_pids())
    show.promise(
        "the old engine is gone after the swap, and its memory with it",
        f"{left} engine process left, {megabytes}",
        held=left == 1 and 0 < memory_after <= memory_before * MEMORY_TOLERANCE,
    )


def _show_windows(show: Show, before: Window, during: Window, after: Window) -> None:
    rows = [before.row("before"), during.row("during the update"), after.row("after")]
    show.narrator.table(("", "requests", "failed", "p50", "p99"), rows)


def _promise_nothing_lost(show: Show, window: Window) -> None:
    digests = list(dict.fromkeys(a.digest for a in window.answers if a.digest))
    show.promise(
        "no request is lost while the model is exchanged",
        f"{len(window.failed)} of {len(window.answers)} failed",
        held=bool(window.answers) and not window.failed,
    )
    late = retired_answers(window.answers, digests[0], digests[-1]) if len(digests) > 1 else 0
    show.promise(
        "no request is answered by the old engine after the flip",
        f"{late} of {len(window.answers)}, answered by {' then '.join(window.releases)}",
        held=late == 0 and window.releases == (f"{MODEL}/{FIRST}", f"{MODEL}/{SECOND}"),
    )


def _all_succeeded(show: Show, results: tuple[Result, ...]) -> bool:
    good = [result.device for result in results if result.outcome is Outcome.SUCCEEDED]
    return sorted(good) == sorted(show.lab.devices)


def _tally(results: tuple[Result, ...]) -> str:
    counts: dict[str, int] = {}
    for result in results:
        words = f"{result.outcome or 'not final'} {result.code}".strip()
        counts[words] = counts.get(words, 0) + 1
    return ", ".join(f"{count} {words}" for words, count in counts.items()) or "no device"
