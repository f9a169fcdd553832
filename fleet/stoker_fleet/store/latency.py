"""Merged latency: windows of devices added up by slot and artifact, never averaged."""

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from stoker_contract.histogram import Histogram, HistogramData
from stoker_contract.telemetry import LatencyWindow
from stoker_fleet.store.schema import LatencyRow


@dataclass(frozen=True)
class MergedLatency:
    """All windows of one artifact in one slot."""

    slot: str
    release: str
    digest: str
    devices: int
    windows: int
    requests: int
    errors: int
    refused: int
    total: HistogramData
    queue: HistogramData
    compute: HistogramData


def merged_latency(
    session: Session,
    *,
    device: str | None = None,
    slot: str | None = None,
    by_digest: bool = True,
) -> tuple[MergedLatency, ...]:
    """Merge what was received, by slot, release and (unless told otherwise) digest.

    Groups come in the order their newest window was received, so the running release is last.
    """
    query = select(LatencyRow).order_by(LatencyRow.received_at, LatencyRow.epoch, LatencyRow.seq)
    if device is not None:
        query = query.where(LatencyRow.device == device)
    if slot is not None:
        query = query.where(LatencyRow.slot == slot)
    groups: dict[tuple[str, str, str], list[LatencyRow]] = {}
    for row in session.scalars(query):
        key = (row.slot, row.release, row.digest if by_digest else "")
        # Popped and put back, so that the group of the newest window becomes the last.
        groups[key] = [*groups.pop(key, []), row]
    return tuple(_merge(key, rows) for key, rows in groups.items())


def _merge(key: tuple[str, str, str], rows: Iterable[LatencyRow]) -> MergedLatency:
    listed = tuple(rows)
    windows = [LatencyWindow.parse(row.document.encode()) for row in listed]
    slot, release, digest = key
    return MergedLatency(
        slot=slot,
        release=release,
        digest=digest,
        devices=len({row.device for row in listed}),
        windows=len(windows),
        requests=sum(window.requests for window in windows),
        errors=sum(window.errors for window in windows),
        refused=sum(window.refused for window in windows),
        total=Histogram.merged(window.total for window in windows).data(),
        queue=Histogram.merged(window.queue for window in windows).data(),
        compute=Histogram.merged(window.compute for window in windows).data(),
    )
