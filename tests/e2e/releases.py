"""The releases of a run: the network that reads digits, really built, and what is made from it.

One build is enough: every later version is the same network in other bytes, so that a device has
to download, prove and swap it, and its golden set says what is right.
"""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from onnx import helper, numpy_helper

from e2e.cache import CHECKOUT, cached, content_of
from e2e.devices import TENSOR
from e2e.fleet import MODEL
from stoker_builder.kernels.isa import target_runs_here
from stoker_cli.demo.variants import Edit, remake
from stoker_contract.manifest import Manifest

FIRST: Final = "1.0.0"
_BUILT_FROM: Final = ("examples/digits", "builder", "contract", "agent/stoker_engine")
_MIB: Final = 1024 * 1024

Frames = np.ndarray[Any, np.dtype[np.float32]]


def built() -> Path:
    """The folder of the first release; it is built if it is not in the cache (about a minute)."""
    return cached(MODEL, content_of(*_BUILT_FROM), _build)


def _build(folder: Path) -> None:
    example = CHECKOUT / "examples/digits"
    subprocess.run(
        [
            *(sys.executable, "-m", "stoker_cli.main", "build", "--name", MODEL),
            *("--model", f"{example / 'model.py'}:factory", "--quick"),
            *("--weights", example / "weights.safetensors"),
            *("--data", f"{example / 'data.py'}:dataset"),
            *("--version", FIRST, "--counter", "1", "--output", folder),
        ],
        check=True,
        capture_output=True,
    )


@dataclass
class Releases:
    """Makes one version after the other."""

    folder: Path
    first: Path
    publish: Callable[[Path], None]
    _last: int = 1
    _digests: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        manifest = Manifest.parse((self.first / "manifest.json").read_bytes())
        # nodes have this machine's processor, and take the first that runs on it
        served = next(one for one in manifest.artifacts if target_runs_here(one.target))
        golden = served.golden.path.rpartition("/")[2]
        with np.load(self.first / golden, allow_pickle=False) as held:
            self.frames: Frames = held[f"input.{TENSOR}"]
            self.right = tuple(int(row.argmax()) for row in held["expected.output"])
        self.frames_file = self.folder / "frames.npy"
        self.folder.mkdir(parents=True)
        np.save(self.frames_file, self.frames)

    def publish_first(self) -> str:
        """Publish what was built. Returns its version."""
        link = self.folder / FIRST
        link.symlink_to(self.first)
        return self._published(link, FIRST)

    def publish_next(self, edit: Edit | None = None, *, padding_mib: float = 0) -> str:
        """Publish another version. Returns it.

        Args:
            edit: what is wrong with it; nothing without.
            padding_mib: make it so much larger, so that a download takes its time.
        """
        self._last += 1
        version = f"{self._last}.0.0"

        def edited(model: onnx.ModelProto) -> None:
            model.doc_string = version
            if padding_mib:
                _pad(model, int(padding_mib * _MIB), self._last)
            if edit is not None:
                edit(model)

        target = self.folder / version
        remake(self.first, target, version=version, counter=self._last, edit=edited)
        return self._published(target, version)

    def is_published(self, digest: str) -> bool:
        """Whether bytes with this digest were ever published here."""
        return digest in self._digests

    def _published(self, folder: Path, version: str) -> str:
        manifest = Manifest.parse((folder / "manifest.json").read_bytes())
        self._digests |= {artifact.digest for artifact in manifest.artifacts}
        self.publish(folder)
        return version


def _pad(model: onnx.ModelProto, length: int, seed: int) -> None:
    noise = np.random.default_rng(seed).integers(0, 256, length, dtype=np.uint8)
    model.graph.initializer.append(numpy_helper.from_array(noise, "e2e_padding"))


def take_memory(gigabytes: float) -> Edit:
    """The same answers; but each needs so much memory. Nothing of that is in the file."""

    def edit(model: onnx.ModelProto) -> None:
        graph = model.graph
        output = graph.output[0].name
        for node in graph.node:
            for place, name in enumerate(node.output):
                if name == output:
                    node.output[place] = "e2e_right"
        shape = np.array([int(gigabytes * 2**28)], np.int64)
        graph.initializer.append(numpy_helper.from_array(shape, "e2e_shape"))
        graph.initializer.append(numpy_helper.from_array(np.array(0, np.float32), "e2e_zero"))
        graph.node.extend(
            [
                # It depends on the input, so that no optimiser folds it away at load.
                helper.make_node("ReduceMax", [TENSOR], ["e2e_top"], keepdims=0),
                helper.make_node("Mul", ["e2e_top", "e2e_zero"], ["e2e_seed"]),
                helper.make_node("Expand", ["e2e_seed", "e2e_shape"], ["e2e_huge"]),
                helper.make_node("ReduceSum", ["e2e_huge"], ["e2e_sum"], keepdims=0),
                helper.make_node("Add", ["e2e_right", "e2e_sum"], [output]),
            ]
        )

    return edit
