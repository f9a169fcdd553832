"""One row or one judgement, in a process of its own whose environment may cap its instructions.

Started by ``benchmarks.builder``: one JSON object in ``argv[1]``, one JSON object into the file
that it names.
"""

import json
import os
import random
import re
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Final

from benchmarks.builder.peer_process import PeerProcess
from benchmarks.builder.peers import EAGER, PEERS, REFERENCE, SHIPPED, Peer, offered
from benchmarks.builder.prepare import Prepared
from benchmarks.builder.processors import NATIVE, has_bf16, target_of
from benchmarks.builder.workloads import WORKLOADS, Workload
from benchmarks.tables import stats_object

from stoker_builder.accuracy.comparison import evidence_of, value_of
from stoker_builder.accuracy.evaluate import Answering, Answers, answer_all, metric_of
from stoker_builder.accuracy.gates import accuracy_verdict
from stoker_builder.children import ModelChild
from stoker_builder.data import load_data
from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.kernels.cap import check_capped
from stoker_builder.kernels.sessions import Session
from stoker_builder.latency.measure import MIN_ROUNDS, BurstRules, Variant, measure
from stoker_builder.latency.stats import LatencyStats, pooled, speedup
from stoker_builder.latency.torch_process import TorchChild
from stoker_builder.latency.torch_routes import ROUTES
from stoker_builder.models.source import io_of
from stoker_builder.split import split

BURST_SECONDS: Final = 0.3
OPENINGS: Final = 6  # the fewest whose extremes are a 95 % interval of the median
_REASON_LETTERS: Final = 200
_FOLDERS: Final = re.compile(r"(?<![\w.])/(?:[^\s/:\"']+/)+")


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be done.

    Attributes:
        isa: ``native``, or one of ``CAPS`` for a capped process.
        seconds: of timing, per variant.
        samples: at most so many are answered.
    """

    task: str
    workload: str
    isa: str
    threads: int
    seconds: float
    samples: int
    folder: str
    output: str


@contextmanager
def open_all(
    order: Order, peers: list[Peer]
) -> Iterator[tuple[dict[str, ModelChild], dict[str, str]]]:
    """Open every peer; those that can not run this model are named with their reasons."""
    workload, prepared = WORKLOADS[order.workload], Prepared(Path(order.folder))
    opened: dict[str, ModelChild] = {}
    failed: dict[str, str] = {}
    with ExitStack() as stack, ThreadPoolExecutor(2) as pool:
        # PyTorch compiles for half a minute in a child: two at a time
        opening = {
            peer.name: pool.submit(_open, peer, order, workload, prepared, stack) for peer in peers
        }
        for name, future in opening.items():
            try:
                opened[name] = future.result()
            except Exception as error:
                failed[name] = _reason(error)
                if name in {REFERENCE, SHIPPED}:
                    raise
        pool.shutdown()
        yield opened, failed


def _open(
    peer: Peer, order: Order, workload: Workload, prepared: Prepared, stack: ExitStack
) -> ModelChild:
    """Open one peer and have it answer once."""
    if peer.file is not None and (reason := prepared.failures.get(peer.file)):
        raise BuildError(BuildCode.QUANTISE, reason, "see the tool's own documentation")
    opened = stack.enter_context(_process(peer, order, workload, prepared))
    opened.run(prepared.example())
    return opened


def _process(peer: Peer, order: Order, workload: Workload, prepared: Prepared) -> ModelChild:
    example = prepared.example()
    if peer.runtime == "torch":
        return TorchChild(
            workload.factory,
            example,
            route=ROUTES[peer.name],
            # how long it takes does not depend on the ranges, and its observers take minutes
            calibration=islice(prepared.calibration(), 4 if order.task == "time" else None),
            threads=order.threads,
        )
    if peer.runtime == "stoker":
        artifact = prepared.artifacts(order.threads)[target_of(order.isa)]
        session = artifact.session.model_copy(update={"intra_op_threads": order.threads})
        path = prepared.release(order.threads) / Path(artifact.path).name
        return PeerProcess("stoker", path, example, threads=order.threads, session=session)
    assert peer.file is not None  # noqa: S101 - the others have one
    return PeerProcess(
        peer.runtime,
        prepared.folder / peer.file,
        example,
        threads=order.threads,
        precision=peer.precision,
    )


def time_row(order: Order) -> dict[str, Any]:
    """Measure all variants of a row, interleaved.

    Where a file comes to lie in memory makes it faster or slower by a few per cent, for as long
    as it is open. So all are opened several times, in another order each time; but PyTorch, which
    compiles for half a minute.
    """
    workload, prepared = WORKLOADS[order.workload], Prepared(Path(order.folder))
    peers = list(offered(is_transformer=workload.is_transformer, has_bf16=has_bf16(order.isa)))
    seconds = order.seconds / OPENINGS
    rules = BurstRules(
        seconds=min(BURST_SECONDS, seconds / MIN_ROUNDS),
        samples=3,
        retries=5,
        retry_budget_share=0.5,
    )
    load = os.getloadavg()[0]
    began = time.monotonic()
    runs: list[Mapping[str, LatencyStats]] = []
    with open_all(order, [peer for peer in peers if peer.runtime == "torch"]) as (slow, refused):
        start_s = time.monotonic() - began
        failed = dict(refused)
        for opening in range(OPENINGS):
            engines = [peer for peer in peers if peer.runtime != "torch"]
            random.Random(opening).shuffle(engines)  # noqa: S311 - who is loaded first
            with open_all(order, engines) as (opened, unable):
                failed |= unable
                variants: dict[str, Variant] = {**slow, **opened}
                runs.append(measure(variants, min_seconds=seconds, min_samples=500, rules=rules))
    names = [name for name in PEERS if all(name in run for run in runs)]
    stats = {name: pooled([run[name] for run in runs]) for name in names}
    return {
        "shipped": _shipped_object(prepared, order),
        "load_1min": load,
        "openings": OPENINGS,
        "processes": "one for each variant",
        "seconds": {"start": round(start_s, 1), "all": round(time.monotonic() - began, 1)},
        "latency": {name: stats_object(entry) for name, entry in stats.items()},
        "vs_eager": _ratios(stats, reference=EAGER),
        "shipped_vs": _ratios(stats, candidate=SHIPPED),
        "failed": failed,
    }


def judge(order: Order) -> dict[str, Any]:
    """Have everything that is not FP32 answer the certification samples; compare with FP32."""
    workload = WORKLOADS[order.workload]
    data = load_data(workload.data, workload.data_arguments)
    parts = split(data, certification_samples=order.samples)
    reference = Session(Path(order.folder) / PEERS[REFERENCE].file)  # type: ignore[operator]  # has one
    metric = metric_of(data, io_of(reference))
    peers = [
        peer
        for peer in offered(is_transformer=workload.is_transformer, has_bf16=has_bf16(order.isa))
        if peer.precision != "fp32"
    ]
    peers = [peer for peer in peers if peer.name != SHIPPED]
    with open_all(order, peers) as (opened, failed), ExitStack() as stack:
        shipped = _every_shipped(order, stack)
        files: dict[str, Answering] = {REFERENCE: reference, **opened, **shipped}
        answers = answer_all(files, parts.certification, metric)
    judged = {
        name: _verdict(answers[REFERENCE], answered, metric)
        for name, answered in answers.items()
        if name != REFERENCE
    }
    return {
        "metric": metric.name,
        "note": data.note,
        "labelled": metric.basis == "labels",
        "reference": value_of(answers[REFERENCE], metric),
        "samples": len(parts.certification),
        "peers": {name: entry for name, entry in judged.items() if name not in shipped},
        "shipped": {name.removeprefix(SHIPPED): judged[name] for name in shipped},
        "failed": failed,
    }


def _every_shipped(order: Order, stack: ExitStack) -> dict[str, Answering]:
    """What ships for each number of threads, by a name that ends with it."""
    workload, prepared = WORKLOADS[order.workload], Prepared(Path(order.folder))
    return {
        f"{SHIPPED}{threads}": stack.enter_context(
            _process(PEERS[SHIPPED], replace(order, threads=threads), workload, prepared)
        )
        for threads in prepared.releases
        if target_of(order.isa) in prepared.artifacts(threads)
    }


def _verdict(reference: Answers, candidate: Answers, metric: Any) -> dict[str, Any]:  # noqa: ANN401
    verdict = accuracy_verdict(evidence_of(reference, candidate, metric))
    finite = bool(candidate.finite.all())
    return {
        "verdict": verdict.verdict.value if finite else "FAIL",
        "candidate": value_of(candidate, metric),
        "loss": verdict.loss,
        "loss_bound": verdict.loss_bound,
    }


def _ratios(
    stats: Mapping[str, LatencyStats], *, reference: str = "", candidate: str = ""
) -> dict[str, Any]:
    """How many times faster each is than ``reference``, or ``candidate`` is than each."""
    if (reference or candidate) not in stats:
        return {}
    ratios = {}
    for name, entry in stats.items():
        slow, fast = (stats[reference], entry) if reference else (entry, stats[candidate])
        gain = speedup(slow, fast, of_rounds=True)
        ratios[name] = {"ratio": gain.ratio, "low": gain.low, "high": gain.high}
    return ratios


def _shipped_object(prepared: Prepared, order: Order) -> dict[str, Any]:
    artifact = prepared.artifacts(order.threads)[target_of(order.isa)]
    kept = {"digest", "length", "precision", "recipe", "session"}
    return {**artifact.model_dump(mode="json", include=kept), "target": artifact.target.name}


def _reason(error: Exception) -> str:
    detail = error.detail if isinstance(error, BuildError) else str(error)
    text = " ".join(f"{type(error).__name__}: {detail}".split())
    text = _FOLDERS.sub("", text)  # a result says nothing of the machine's owner
    half = _REASON_LETTERS // 2
    return text if len(text) <= _REASON_LETTERS else f"{text[:half]} … {text[-half:]}"


def main() -> None:
    """Do what is ordered and write it down."""
    order = Order(**json.loads(sys.argv[1]))
    if order.isa != NATIVE:
        check_capped()
    tasks = {"time": time_row, "judge": judge}
    result = tasks[order.task](order)
    path = Path(order.output)
    unfinished = path.with_suffix(".new")
    unfinished.write_text(json.dumps(result, allow_nan=False), encoding="utf-8")
    unfinished.rename(path)


if __name__ == "__main__":
    main()
