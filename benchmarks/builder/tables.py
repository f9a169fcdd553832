"""The result as tables for people: one line per row, then each row in full. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.builder.peers import PEERS, SHIPPED
from benchmarks.builder.workloads import WORKLOADS

BUSY_SHARE: Final = 0.2
ISA_TITLES: Final = {
    "native": "this processor",
    "vnni": "capped at VNNI",
    "avx2": "capped at AVX2",
}


@dataclass(frozen=True, slots=True)
class Standing:
    """How what ships compares with the peers of one row.

    Attributes:
        best: the fastest peer whose accuracy is certified to be kept; FP32 keeps it.
        ahead: peers that are faster than what ships, and why none of them counts.
    """

    best: str
    ratio: float
    low: float | None
    high: float | None
    ahead: tuple[str, ...]


def standing(row: Mapping[str, Any], accuracy: Mapping[str, Any]) -> Standing:
    """Compare what ships with the best peer that keeps its accuracy."""
    peers = {name: entry for name, entry in row["latency"].items() if name != SHIPPED}
    keeping = [name for name in peers if keeps(name, accuracy)]
    best = min(keeping, key=lambda name: peers[name]["p50_ms"])
    gain = row["shipped_vs"][best]
    own = row["latency"][SHIPPED]["p50_ms"]
    ahead = tuple(
        name for name, entry in peers.items() if entry["p50_ms"] < own and name not in keeping
    )
    return Standing(best, gain["ratio"], gain["low"], gain["high"], ahead)


def keeps(name: str, accuracy: Mapping[str, Any]) -> bool:
    """Whether a peer's accuracy is beyond doubt: FP32, or certified like a candidate."""
    if PEERS[name].precision == "fp32":
        return True
    judged = accuracy.get("peers", {}).get(name)
    return judged is not None and judged["verdict"] == "PASS"


def busy_share(row: Mapping[str, Any]) -> float:
    """Share of a row's samples that were taken while others used the processor."""
    shares = [entry["contaminated_share"] for entry in row["latency"].values()]
    return float(sum(shares) / len(shares))


def markdown(result: Mapping[str, Any]) -> str:
    """Write all tables."""
    rows = result["rows"]
    lines = [f"# builder: {result['summary']}", ""]
    if not rows:
        return "\n".join([*lines, "Nothing was measured yet.", ""])
    days = sorted(row["measured_at"][:10] for row in rows.values())
    lines += [
        f"{days[-1]}; batch 1, the variants of a row interleaved, equal threads. What ships is",
        "compared with the fastest peer that keeps its accuracy: FP32, or certified to lose less",
        "than one point, as what ships is. `capped at AVX2`: the kernels of a processor without",
        "VNNI on this core; ratios mean something there, milliseconds do not.",
        *_about_vnni(rows),
        "",
        "| model | processor | threads | ships | p50 ms | vs eager | tuned | vs best peer | it |",
        "|---|---|---:|---|---:|---:|---:|---:|---|",
    ]
    lines += [_summary(row, accuracy_of(result, row)) for row in rows.values()]
    busy = [key for key, row in rows.items() if busy_share(row) > BUSY_SHARE]
    if busy:
        lines += ["", f"**Do not quote**, the machine was busy: {', '.join(busy)}."]
    for row in rows.values():
        lines += ["", *_table(row, accuracy_of(result, row))]
    return "\n".join(lines) + "\n"


def _about_vnni(rows: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    if any(row["isa"] == "vnni" for row in rows.values()):
        yield "`capped at VNNI`: of one that has it, and neither BF16 nor AMX."


def accuracy_of(result: Mapping[str, Any], row: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the variants of a row answered; of what ships, the file that the row measured."""
    found = result["accuracy"].get(f"{row['workload']}/{row['isa']}", {})
    shipped = found.get("shipped", {}).get(str(row["threads"]))
    return {**found, "peers": {**found["peers"], SHIPPED: shipped}} if shipped else found


def _summary(row: Mapping[str, Any], accuracy: Mapping[str, Any]) -> str:
    stands = standing(row, accuracy)
    eager = row["vs_eager"].get(SHIPPED)
    tuned = row["shipped_vs"].get("eager-tuned")
    cells = [
        WORKLOADS[row["workload"]].title,
        ISA_TITLES[row["isa"]],
        str(row["threads"]),
        _ships(row["shipped"]),
        f"{row['latency'][SHIPPED]['p50_ms']:.2f}",
        f"{eager['ratio']:.1f}x" if eager else "",
        f"{tuned['ratio']:.1f}x" if tuned else "",
        _gain({"ratio": stands.ratio, "low": stands.low, "high": stands.high}),
        PEERS[stands.best].title,
    ]
    return f"| {' | '.join(cells)} |"


def _table(row: Mapping[str, Any], accuracy: Mapping[str, Any]) -> Iterator[str]:
    shipped = row["shipped"]
    threads = "one thread" if row["threads"] == 1 else f"{row['threads']} threads"
    title = WORKLOADS[row["workload"]].title
    yield f"## {title}, {threads}, {ISA_TITLES[row['isa']]}"
    yield ""
    yield (
        f"Shipped: {_ships(shipped)} ({shipped['recipe'] or 'as exported'}), "
        f"{shipped['length'] / 1e6:.1f} MB, for {shipped['target']}. "
        f"{busy_share(row):.0%} of the samples were taken beside busy neighbours."
    )
    if accuracy:
        yield (
            f"Accuracy: {accuracy['metric']} {accuracy['reference']:.4g} for FP32; "
            f"{accuracy['note']}; {accuracy['samples']} samples."
        )
    yield ""
    yield (
        "| | p50 ms | p95 ms | vs eager | shipped is faster by | loss (bound), points | accuracy |"
    )
    yield "|---|---:|---:|---:|---:|---:|---|"
    for name, peer in PEERS.items():
        if name in row["latency"]:
            stats = row["latency"][name]
            yield (
                f"| {peer.title} | {stats['p50_ms']:.2f} | {stats['p95_ms']:.2f} "
                f"| {_gain(row['vs_eager'].get(name), interval=False)} "
                f"| {'' if name == SHIPPED else _gain(row['shipped_vs'].get(name))} "
                f"| {_loss(name, accuracy)} | {_verdict(name, row, accuracy)} |"
            )
    for name, reason in row["failed"].items():
        yield f"| {PEERS[name].title} | | | | | | could not run: {_escaped(reason)} |"


def _ships(shipped: Mapping[str, Any]) -> str:
    runtime = shipped["session"].get("runtime") or "onnxruntime"
    precision = shipped["precision"]
    floats = shipped["session"].get("float_precision", "fp32")
    mixed = f"+{floats}" if floats not in {"fp32", precision} else ""
    return f"{precision}{mixed} in {runtime}"


def _loss(name: str, accuracy: Mapping[str, Any]) -> str:
    judged = accuracy.get("peers", {}).get(name)
    if judged is None:
        return ""
    return f"{100 * judged['loss']:+.2f} ({100 * judged['loss_bound']:+.2f})"


def _verdict(name: str, row: Mapping[str, Any], accuracy: Mapping[str, Any]) -> str:
    if PEERS[name].precision == "fp32" or (
        name == SHIPPED and row["shipped"]["precision"] == "fp32"
    ):
        return "FP32"
    judged = accuracy.get("peers", {}).get(name)
    if judged is None:
        return "not judged"
    verdicts = {"PASS": "kept", "FAIL": "**broken**", "INCONCLUSIVE": "not certain"}
    return verdicts[judged["verdict"]]


def _gain(gain: Mapping[str, float | None] | None, *, interval: bool = True) -> str:
    if gain is None:
        return ""
    low, high = gain["low"], gain["high"]
    between = f" ({low:.2f} to {high:.2f})" if interval and low and high else ""
    return f"{gain['ratio']:.2f}x{between}" if interval else f"{gain['ratio']:.1f}x"


def _escaped(text: str) -> str:
    return text.replace("|", "/")
