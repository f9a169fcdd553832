"""The demo from beginning to end."""

import json
import shutil
import time
from pathlib import Path
from typing import Final

from stoker_cli.broker.process import installed_program
from stoker_cli.demo import recoveries, refusals, telemetry, updates
from stoker_cli.demo.lab import Lab
from stoker_cli.demo.narrator import Narrator
from stoker_cli.demo.show import Options, Show
from stoker_cli.errors import CommandError

REPORT: Final = "report.json"
MARKER: Final = ".stoker-demo"


def run_demo(root: Path, options: Options, *, keep: bool) -> bool:
    """Run every step. Returns whether every promise held."""
    narrator = Narrator()
    began_s = time.monotonic()
    _title(narrator, options)
    _begin_with_nothing(root)
    with Lab(root) as lab:
        show = Show(lab, narrator, options)
        try:
            _steps(show)
        except CommandError as error:
            hint = f"\n{error.hint}" if error.hint else ""
            show.promise("the demo comes to its end", f"{error}{hint}", held=False)
        narrator.summary(show.scorecard, time.monotonic() - began_s)
        _write_report(show, time.monotonic() - began_s)
        if keep and show.scorecard.all_held:
            _stay(show)
    return show.scorecard.all_held


def _begin_with_nothing(root: Path) -> None:
    """Remove what an earlier run left; a folder that no demo made is never emptied."""
    if root.exists() and any(root.iterdir()) and not (root / MARKER).exists():
        msg = f"{root} is not empty, and was not made by this command"
        raise CommandError(msg, hint="Name another folder with --dir.")
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    (root / MARKER).touch()


def _title(narrator: Narrator, options: Options) -> None:
    photos = f"labelled photographs in {options.photos}" if options.photos else "no labels"
    narrator.title(
        "stoker",
        f"A trained model to {options.device_count} devices on this machine, and everything that "
        f"can go wrong on the way.\nBroker: {installed_program()} · gate: {photos} · every "
        "process is real and on loopback.",
    )


def _steps(show: Show) -> None:
    updates.build_releases(show)
    show.lab.prepare()
    updates.start_fleet(show)
    updates.roll_out_first(show)
    traffic = updates.start_load(show)
    updates.roll_out_second(show, traffic)
    refusals.refuse_swapped_labels(show, traffic)
    refusals.roll_back_slow(show, traffic)
    recoveries.kill_agent_mid_download(show)
    recoveries.kill_server_while_serving(show, traffic)
    telemetry.show_fleet_latency(show, traffic.frames)


def _write_report(show: Show, seconds: float) -> None:
    report = {
        "seconds": round(seconds, 1),
        "all_held": show.scorecard.all_held,
        "promises": show.scorecard.to_object(),
    }
    (show.lab.root / REPORT).write_text(json.dumps(report, indent=2) + "\n")


def _stay(show: Show) -> None:
    lab, narrator = show.lab, show.narrator
    narrator.step("It goes on running until Ctrl-C. In another terminal:")
    for line in (
        f"export STOKER_FLEET_CONFIG={lab.fleet_configuration}",
        "stoker device list",
        f"stoker device latency {show.first.name}",
        f"stoker rollout create photos/{updates.FIRST} --to all --slot camera",
        "stoker rollout watch",
        f"stoker-agent why --config {show.first.config}",
        f"curl --unix-socket {show.first.inference_socket} http://localhost/v2/models/camera",
    ):
        narrator.fact(line)
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        narrator.fact("Ending every process.")
