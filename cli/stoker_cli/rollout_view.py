"""Drawing a rollout: a row per device while it runs, lines where there is no terminal."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, Final

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from stoker_cli.fleet_options import plain
from stoker_cli.printable import printable
from stoker_contract.codes import Outcome
from stoker_contract.status import Measured
from stoker_fleet.config import FleetConfig
from stoker_fleet.core.rollout import GOOD, DeviceProgress, RolloutState, measure
from stoker_fleet.lock import is_controller_running
from stoker_fleet.store import rollouts
from stoker_fleet.store.rollouts import RolloutView
from stoker_fleet.store.schema import Store

EXIT_OK: Final = 0
EXIT_FAILED: Final = 1
EXIT_TIMEOUT: Final = 3
_POLL_S: Final = 0.25
_NO_CONTROLLER: Final = (
    "No controller is running: nothing is sent or received. Run: stoker fleet run"
)


def watch_rollout(
    config: FleetConfig,
    store: Store,
    rollout_id: str | None,
    *,
    timeout_s: float | None,
    as_json: bool,
) -> int:
    """Follow a rollout until it is over, and return the exit status."""
    deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
    current = _read(store, rollout_id)
    with _screen(config, as_json=as_json) as show:
        show(current)
        while current.standing is RolloutState.RUNNING:
            if deadline_s is not None and time.monotonic() >= deadline_s:
                break
            time.sleep(_POLL_S)
            current = _read(store, current.rollout_id)
            show(current)
    return _conclude(current, config, as_json=as_json)


@contextmanager
def _screen(config: FleetConfig, *, as_json: bool) -> Iterator[Callable[[RolloutView], None]]:
    """What shows a rollout: nothing, a table that is drawn again, or lines."""
    console = Console()
    if as_json:
        yield _show_nothing
    elif console.is_terminal:
        with Live(console=console, auto_refresh=False) as live:
            yield lambda view: live.update(_render(view, config), refresh=True)
    else:
        yield _Lines(config)


def as_object(view: RolloutView) -> dict[str, Any]:
    """A rollout as JSON, with all denominators."""
    devices = [
        {
            **{key: value for key, value in asdict(device).items() if value is not None},
            "final": device.final,
            "measured": view.measured.get(device.device, Measured()).to_object(),
        }
        for device in view.devices
    ]
    return {
        "rollout_id": view.rollout_id,
        "release": view.release,
        "slot": view.slot,
        "selector": view.selector,
        "plan": view.plan.to_object(),
        "state": view.standing,
        "created_at": view.created_at,
        "finished_at": view.finished_at,
        "progress": asdict(measure(view.devices)),
        "devices": devices,
    }


def _read(store: Store, rollout_id: str | None) -> RolloutView:
    with store.transaction() as session:
        return rollouts.view(session, rollout_id)


def _conclude(view: RolloutView, config: FleetConfig, *, as_json: bool) -> int:
    state = view.standing
    running = is_controller_running(config.database)
    if as_json:
        typer.echo(json.dumps({**as_object(view), "controller_running": running}))
    if state is RolloutState.SUCCEEDED:
        return EXIT_OK
    if state is not RolloutState.RUNNING:
        return EXIT_FAILED
    typer.echo(f"Rollout {view.rollout_id} is not over yet.", err=True)
    if not running:
        typer.echo(_NO_CONTROLLER, err=True)
    return EXIT_TIMEOUT


def _show_nothing(_view: RolloutView) -> None:
    """With --json there is only the end."""


class _Lines:
    """One line whenever a device gets further."""

    def __init__(self, config: FleetConfig) -> None:
        self._config = config
        self._shown: dict[str, str] = {}
        self._warned = False

    def __call__(self, view: RolloutView) -> None:
        if not self._shown:
            typer.echo(f"Rollout {view.rollout_id}: {view.release} → slot {view.slot}")
        for device in view.devices:
            words = printable(f"{_where(device)}  {_figures(view, device)}".rstrip())
            if self._shown.get(device.device) != words:
                self._shown[device.device] = words
                typer.echo(f"  {device.device:<20} {words}")
        if not self._warned and not is_controller_running(self._config.database):
            self._warned = True
            typer.echo(_NO_CONTROLLER)


def _render(view: RolloutView, config: FleetConfig) -> RenderableType:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for title in ("device", "generation", "where it is", "measured"):
        table.add_column(title, justify="right" if title == "generation" else "left")
    for device in view.devices:
        generation = str(device.generation) if device.generation else "-"
        where = Text(printable(_where(device)), style=_style(device))
        figures = Text(printable(_figures(view, device)))
        table.add_row(device.device, generation, where, figures)
    progress = measure(view.devices)
    counts = (
        f"{progress.targeted} targeted · {progress.reachable} reachable · "
        f"{progress.notified} notified · {progress.started} started · {progress.final} final"
    )
    if progress.skipped:
        counts += f" · {progress.skipped} skipped"
    head = Text.assemble(
        *("Rollout ", (view.rollout_id, "bold"), ": ", (view.release, "bold")),
        f" → slot {view.slot}, since {plain(view.created_at)} UTC",
    )
    parts: list[RenderableType] = [head, table, Text(counts, style="dim")]
    if view.standing is RolloutState.RUNNING and not is_controller_running(config.database):
        parts.append(Text(_NO_CONTROLLER, style="bold red"))
    return Group(*parts)


def _where(device: DeviceProgress) -> str:
    if device.skipped is not None:
        return f"skipped {device.skipped}: {device.detail}"
    if device.outcome is not None:
        reason = f" {device.code}" if device.code else ""
        detail = f": {device.detail}" if device.detail and device.outcome not in GOOD else ""
        return f"{device.outcome}{reason}{detail}"
    if device.phase is not None:
        return str(device.phase)
    if device.generation is None:
        return "waits for the controller"
    if not device.notified:
        return "waits for the broker"
    return "notified" if device.reachable else "notified, offline now"


def _style(device: DeviceProgress) -> str:
    if device.good:
        return "bold green"
    if device.final:
        return "yellow" if device.outcome is Outcome.SUPERSEDED else "bold red"
    return "cyan" if device.started else "dim"


def _figures(view: RolloutView, device: DeviceProgress) -> str:
    told = view.measured.get(device.device)
    if told is None:
        return ""
    words = []
    if told.golden_score is not None:
        words.append(f"golden {told.golden_score:.3f}")
    if told.candidate_p99_ms is not None:
        beside = f" (active {told.active_p99_ms:.2f})" if told.active_p99_ms is not None else ""
        words.append(f"p99 {told.candidate_p99_ms:.2f} ms{beside}")
    if told.p99_before_ms is not None and told.p99_after_ms is not None:
        words.append(f"live p99 {told.p99_before_ms:.2f} → {told.p99_after_ms:.2f} ms")
    if told.flip_us is not None:
        words.append(f"flip {told.flip_us:.0f} µs")
    if told.dropped is not None:
        words.append(f"{told.dropped} dropped")
    if told.confidence:
        words.append(f"confidence {told.confidence}")
    return ", ".join(words)
