"""Compiles graphs for SM89 and says what came out; for Pythons that other tests do not run on."""

import json
import sys
from pathlib import Path

from stoker_builder.tensorrt.compiler import compile_plan
from stoker_builder.tensorrt.graphs import is_quantised, parsable
from stoker_builder.tensorrt.settings import CompileSettings
from stoker_builder.tensorrt.targets import plan_targets
from stoker_contract.target import Runtime


def main(folder: Path, *graphs: str) -> None:
    """Write ``NAME.plan`` for each ``NAME.onnx`` into a folder, and the versions to stdout."""
    import onnx  # noqa: PLC0415 - compiling needs none of it, checking a graph does

    settings = CompileSettings(runtime=Runtime.TENSORRT_RTX, compute_capability="89")
    versions = []
    for graph in map(Path, graphs):
        made = compile_plan(graph, folder / f"{graph.stem}.plan", settings)
        versions.append(made.header.version)
    quantised = [is_quantised(parsable(onnx.load(graph))) for graph in graphs]
    said = {
        "python": sys.version_info[:2],
        "versions": versions,
        "quantised": quantised,
        "targets": len(plan_targets()),
    }
    sys.stdout.write(json.dumps(said))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
