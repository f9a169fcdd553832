"""The rows that the README shows, written from the results. Pure.

A block there begins with a comment that names a result and the processors whose rows it holds::

    <!-- rows of builder-some-machine: native, avx2 -->
    <!-- end of rows -->
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from benchmarks.builder.peers import PEERS, REFERENCE, SHIPPED
from benchmarks.builder.processors import NATIVE
from benchmarks.builder.tables import ISA_TITLES, accuracy_of, standing
from benchmarks.builder.workloads import WORKLOADS

_BLOCK: Final = re.compile(
    r"(?P<begin><!-- rows of (?P<result>[\w-]+): (?P<isas>[a-z0-9, ]+) -->\n)"
    r".*?(?P<end><!-- end of rows -->)",
    re.DOTALL,
)
_LEVEL: Final = 0.95  # nobody notices less
_TITLES: Final = """\
| | threads | what ships | vs eager | vs ONNX Runtime FP32 | vs the fastest that keeps accuracy |
|---|---:|---:|---:|---:|---|
"""


def filled(text: str, load: Callable[[str], Mapping[str, Any]]) -> str:
    """Write the rows of every block of a text.

    Args:
        text: of the README.
        load: reads a result by its name.
    """

    def block(found: re.Match[str]) -> str:
        isas = [isa.strip() for isa in found["isas"].split(",")]
        lines = "".join(f"{line}\n" for line in _lines(load(found["result"]), isas))
        return found["begin"] + _TITLES + lines + found["end"]

    return _BLOCK.sub(block, text)


def _lines(result: Mapping[str, Any], isas: list[str]) -> Iterator[str]:
    for row in result["rows"].values():
        if row["isa"] in isas:
            yield _line(row, accuracy_of(result, row))


def _line(row: Mapping[str, Any], accuracy: Mapping[str, Any]) -> str:
    title = WORKLOADS[row["workload"]].title
    cells = [
        title if row["isa"] == NATIVE else f"{title}, {ISA_TITLES[row['isa']]}",
        str(row["threads"]),
        _ms(row["latency"][SHIPPED]["p50_ms"]),
        f"{row['vs_eager'][SHIPPED]['ratio']:.1f}x",
        f"{row['shipped_vs'][REFERENCE]['ratio']:.1f}x",
        _stands(row, accuracy),
    ]
    return f"| {' | '.join(cells)} |"


def _stands(row: Mapping[str, Any], accuracy: Mapping[str, Any]) -> str:
    stands = standing(row, accuracy)
    best, low, high = PEERS[stands.best].title, stands.low or 0.0, stands.high or 0.0
    between = f"({stands.ratio:.2f}x, {low:.2f} to {high:.2f})"
    if low > 1:
        text = f"{stands.ratio:.2f}x faster than {best}"
    elif high < 1:
        text = f"**slower** than {best} {between}"
    elif stands.ratio < _LEVEL:
        text = f"perhaps **slower** than {best} {between}"
    elif stands.ratio > 1 / _LEVEL:
        text = f"perhaps faster than {best} {between}"
    else:
        text = f"as fast as {best} {between}"
    ahead = ", ".join(_uncertain(stands.ahead, row, accuracy))
    return f"{text}; faster, but not certain to keep accuracy: {ahead}" if ahead else text


def _uncertain(
    ahead: Iterable[str], row: Mapping[str, Any], accuracy: Mapping[str, Any]
) -> Iterator[str]:
    """Name who was certainly faster, and neither kept its accuracy for certain nor broke it."""
    for name in ahead:
        judged, gain = accuracy.get("peers", {}).get(name), row["shipped_vs"][name]
        if (judged is None or judged["verdict"] == "INCONCLUSIVE") and (gain["high"] or 0.0) < 1:
            yield f"{PEERS[name].title} ({gain['ratio']:.2f}x)"


def _ms(value: float) -> str:
    return f"{value:.1f} ms" if value >= 10 else f"{value:.2f} ms"  # noqa: PLR2004 - three digits
