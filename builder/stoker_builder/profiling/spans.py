"""What a profiler recorded, whichever it was, and what that adds up to. Pure."""

import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from stoker_builder.profiling.operators import OperatorProfile, OperatorShare

MAX_TYPES: Final = 16
MAX_NODES: Final = 20
_NAME: Final = 256


@dataclass(frozen=True, slots=True)
class Span:
    """One node, once.

    Attributes:
        run: which of the recorded runs it belongs to, from 0.
        begin_us: since the recording began.
        kernel: what the runtime says it used, if it says so.
    """

    run: int
    node: str
    op_type: str
    begin_us: float
    duration_us: float
    kernel: str = ""


@dataclass(frozen=True, slots=True)
class Recording:
    """Some warm runs of one artifact.

    Attributes:
        title: what was run, for people.
        runtime: whose profiler recorded it.
    """

    title: str
    runtime: str
    spans: tuple[Span, ...]


def profile_of(recording: Recording) -> OperatorProfile:
    """Add up where the time of one run goes: the median of each node over the runs."""
    nodes = _medians(recording.spans)
    total_us = sum(one.us for one in nodes)
    by_type: dict[str, list[_Node]] = defaultdict(list)
    for node in nodes:
        by_type[node.op_type].append(node)
    kinds = [
        _Node(kind, kind, sum(one.us for one in members), sum(one.calls for one in members))
        for kind, members in by_type.items()
    ]
    kinds.sort(key=lambda kind: -kind.us)
    if len(kinds) > MAX_TYPES:
        rest = kinds[MAX_TYPES - 1 :]
        others = _Node("", "others", sum(one.us for one in rest), sum(one.calls for one in rest))
        kinds = [*kinds[: MAX_TYPES - 1], others]
    return OperatorProfile(
        title=recording.title[:_NAME],
        runtime=recording.runtime[:_NAME],
        total_ms=total_us / 1000,
        by_type=_shares(kinds, total_us),
        nodes=_shares(sorted(nodes, key=lambda node: -node.us)[:MAX_NODES], total_us),
    )


@dataclass(frozen=True, slots=True)
class _Node:
    name: str
    op_type: str
    us: float
    calls: int


def _medians(spans: Sequence[Span]) -> list[_Node]:
    runs = len({span.run for span in spans})
    taken: dict[tuple[str, str], dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for span in spans:
        taken[span.node, span.op_type][span.run].append(span.duration_us)
    nodes = []
    for (name, op_type), by_run in taken.items():
        # a node that took no part in some runs took no time in them
        sums = [sum(us) for us in by_run.values()] + [0.0] * (runs - len(by_run))
        calls = round(sum(len(us) for us in by_run.values()) / runs)
        nodes.append(_Node(name, op_type, statistics.median(sums), max(calls, 1)))
    return nodes


def _shares(nodes: Iterable[_Node], total_us: float) -> tuple[OperatorShare, ...]:
    return tuple(
        OperatorShare(
            name=node.name[:_NAME],
            op_type=node.op_type[:_NAME],
            calls=node.calls,
            ms=node.us / 1000,
            share=min(node.us / total_us, 1.0) if total_us else 0.0,
        )
        for node in nodes
    )
