"""The file that a person sends: tables to read, and the same as JSON at its end. Pure."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

_CELL = 300


def document(told: Mapping[str, Any]) -> str:
    """The whole file."""
    return "\n".join(_lines(told)) + "\n"


def without_places(text: str, places: Mapping[str, str]) -> str:
    """The same without the folders of whoever checked: the words of an error have them.

    Args:
        text: what is sent.
        places: folders, and what stands for each; the inner ones first.
    """
    for folder, name in places.items():
        if folder.strip("/"):
            text = text.replace(folder.rstrip("/"), name)
    return text


def read(text: str) -> dict[str, Any]:
    """The JSON of a file that somebody sent."""
    found: dict[str, Any] = json.loads(text.rpartition("```json\n")[2].rpartition("\n```")[0])
    return found


def _lines(told: Mapping[str, Any]) -> Iterator[str]:
    yield f"# A board, checked at {told['at']}"
    yield ""
    yield "| step | | what came of it | s |"
    yield "|---|---|---|---:|"
    for step in told["steps"]:
        mark = "done" if step["done"] else "**not done**"
        yield f"| {step['name']} | {mark} | {_cell(step['said'])} | {step['seconds']:.1f} |"
    yield ""
    if told["latency"]:
        yield "One run at a time, all in turns, milliseconds:"
        yield ""
        yield "| engine | p50 | p95 | p99 | least | runs |"
        yield "|---|---:|---:|---:|---:|---:|"
        for name, one in told["latency"].items():
            figures = (one[key] for key in ("p50_ms", "p95_ms", "p99_ms", "min_ms"))
            shown = " | ".join(f"{figure:.3f}" for figure in figures)
            yield f"| {name} | {shown} | {one['samples']} |"
    else:
        yield "Nothing could be timed."
    yield ""
    yield "```json"
    yield json.dumps(told, indent=1, sort_keys=True, default=str, ensure_ascii=False)
    yield "```"


def _cell(text: str) -> str:
    flat = " ".join(text.split()).replace("|", "\\|")
    return flat if len(flat) <= _CELL else f"{flat[:_CELL]} …"
