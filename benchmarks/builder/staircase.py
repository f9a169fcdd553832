"""The result as a drawing: from eager PyTorch down to what ships, one stair per variant. Pure."""

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any, Final

from benchmarks.builder.peers import EAGER, PEERS, SHIPPED
from benchmarks.builder.tables import accuracy_of, keeps
from benchmarks.builder.workloads import WORKLOADS

WIDTH: Final = 920
BAR: Final = 15
GAP: Final = 4
TITLE: Final = 34
MARGIN: Final = 18
LABELS: Final = 268
NUMBERS: Final = 190
_STYLE: Final = """
text { font: 12px system-ui, sans-serif; fill: #24292f }
.title { font-weight: 600; font-size: 14px }
.note { fill: #57606a }
.peer { fill: #9aa7b4 } .ships { fill: #1a7f37 }
.broken { fill: url(#broken) } .uncertain { fill: url(#uncertain) }
.strong { font-weight: 600; fill: #1a7f37 }
@media (prefers-color-scheme: dark) {
 text { fill: #e6edf3 } .note { fill: #8d96a0 } .peer { fill: #6e7681 }
 .ships { fill: #3fb950 } .strong { fill: #3fb950 }
}"""
_HATCHES: Final = (("broken", "#ffd8d3", "#cf222e"), ("uncertain", "#d8dee4", "#8c959f"))


def staircase(result: Mapping[str, Any]) -> str:
    """Draw the rows with one thread on the processor as it is, or else all rows."""
    rows = list(result["rows"].values())
    chosen = [row for row in rows if row["isa"] == "native" and row["threads"] == 1] or rows
    parts: list[str] = []
    top = MARGIN
    for row in chosen:
        accuracy = accuracy_of(result, row)
        drawn = list(_stairs(row, accuracy, top))
        parts += drawn
        top += TITLE + len(row["latency"]) * (BAR + GAP) + MARGIN
    note = "red: accuracy broken; grey hatched: not certified to be kept"
    caption = f"{note} · {result['summary']}, batch 1, equal threads, interleaved"
    parts.append(f'<text class="note" x="{MARGIN}" y="{top + 4}">{escape(caption)}</text>')
    height = top + MARGIN
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}"'
        f' width="{WIDTH}" height="{height}" role="img"'
        ' aria-label="Time of one inference, from eager PyTorch to what stoker ships">'
    )
    styles = [
        f"<style>{_STYLE}</style>",
        f"<defs>{''.join(_hatch(*colours) for colours in _HATCHES)}</defs>",
    ]
    return "\n".join([head, *styles, *parts, "</svg>", ""])


def _stairs(row: Mapping[str, Any], accuracy: Mapping[str, Any], top: int) -> Iterator[str]:
    latency = row["latency"]
    threads = "1 thread" if row["threads"] == 1 else f"{row['threads']} threads"
    title = f"{WORKLOADS[row['workload']].title} · {threads}"
    yield f'<text class="title" x="{MARGIN}" y="{top + 16}">{escape(title)}</text>'
    longest = max(entry["p50_ms"] for entry in latency.values())
    room = WIDTH - LABELS - NUMBERS - MARGIN
    # what ships comes last, whatever is faster and breaks its accuracy above it
    order = sorted(latency, key=lambda name: (name == SHIPPED, -latency[name]["p50_ms"]))
    for position, name in enumerate(order):
        p50_ms = latency[name]["p50_ms"]
        y = top + TITLE + position * (BAR + GAP) - 8
        length = max(room * p50_ms / longest, 1.0)
        ships = name == SHIPPED
        kind = "ships" if ships else _kind(name, accuracy)
        label = "what stoker ships" if ships else PEERS[name].title
        strong = ' class="strong"' if ships else ""
        base = y + BAR - 3
        yield f'<text{strong} x="{LABELS - 8}" y="{base}" text-anchor="end">{escape(label)}</text>'
        yield f'<rect class="{kind}" x="{LABELS}" y="{y}" width="{length:.1f}" height="{BAR}"/>'
        text = f"{p50_ms:.2f} ms{_factor(row, name)}"
        yield f'<text{strong} x="{LABELS + length + 6:.1f}" y="{base}">{text}</text>'


def _kind(name: str, accuracy: Mapping[str, Any]) -> str:
    if keeps(name, accuracy):
        return "peer"
    judged = accuracy.get("peers", {}).get(name, {})
    return "broken" if judged.get("verdict") == "FAIL" else "uncertain"


def _hatch(name: str, paper: str, ink: str) -> str:
    return (
        f'<pattern id="{name}" width="6" height="6" patternUnits="userSpaceOnUse"'
        f' patternTransform="rotate(45)"><rect width="6" height="6" fill="{paper}"/>'
        f'<rect width="3" height="6" fill="{ink}"/></pattern>'
    )


def _factor(row: Mapping[str, Any], name: str) -> str:
    gain = row["vs_eager"].get(name)
    return "" if gain is None or name == EAGER else f" · {gain['ratio']:.1f}x"
