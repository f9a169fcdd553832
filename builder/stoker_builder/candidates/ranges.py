"""What values the activations of a model take: the calibration samples, run once or twice.

Only a minimum, a maximum, a histogram and the means of channels are kept for each tensor, however
many samples there are. The first run finds the extremes and the means; the second, which only
clipping needs, the histograms.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationMethod
from onnxruntime.quantization.calibrate import TensorsData
from onnxruntime.quantization.quantize import save_tensors_data

from stoker_builder.candidates.bias import Means, weighted_inputs
from stoker_builder.candidates.recipes import Ranges
from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.kernels.sessions import Session
from stoker_builder.split import Part

BINS: Final = 2048
PERCENTILE: Final = 0.9999
_LEVELS: Final = 128  # of eight bits, on one side of zero
_STEP: Final = 16  # thresholds that the entropy is tried at are so many bins apart

Counts = NDArray[np.int64]


@dataclass(slots=True)
class Observed:
    """One tensor: its extremes, and how often it was where between them."""

    low: float
    high: float
    counts: Counts | None = None

    def edges(self) -> NDArray[np.float64]:
        """The borders of the bins."""
        return np.linspace(self.low, max(self.high, np.nextafter(self.low, np.inf)), BINS + 1)

    def count(self, values: NDArray[np.generic]) -> None:
        """Add what lies in each bin: what ``np.histogram`` does, in a tenth of its time."""
        span = max(self.high - self.low, float(np.finfo(np.float32).tiny) * BINS)
        places = np.subtract(values.ravel(), np.float32(self.low), dtype=np.float32)
        places *= np.float32(BINS / span)
        # the maximum lies on the last border, and rounding may carry a value past it
        bins = np.clip(places.astype(np.int64), 0, BINS - 1)
        found = np.bincount(bins, minlength=BINS)
        self.counts = found if self.counts is None else self.counts + found


class Observer:
    """Runs the calibration samples through a model and watches its activations.

    Args:
        model: the file that is to be quantised.
        part: the calibration samples.
        scratch: for the file whose every activation is an output.
        advance: called for each sample of the first run.
    """

    def __init__(
        self, model: Path, part: Part, scratch: Path, advance: Callable[[], object]
    ) -> None:
        self._part = part
        self._advance = advance
        self._watched = scratch / f"watched-{model.name}"
        _watch_everything(model, self._watched)
        self._channels = weighted_inputs(model)
        self._sums: dict[str, NDArray[np.float64]] = {}
        self._seen: dict[str, Observed] | None = None
        self._counted = False

    def ranges(self, how: Ranges) -> Mapping[str, tuple[float, float]]:
        """The range to quantise each activation with.

        Raises:
            BuildError: ``QUANTISE``, when an activation is not finite.
        """
        seen = self._extremes()
        if how == "minmax":
            return {name: (entry.low, entry.high) for name, entry in seen.items()}
        self._count(seen)
        choose = percentile if how == "percentile" else entropy
        return {name: choose(entry) for name, entry in seen.items()}

    def means(self) -> Means:
        """The mean of each channel of what is multiplied with a weight.

        Raises:
            BuildError: ``QUANTISE``, when an activation is not finite.
        """
        self._extremes()
        return {name: total / len(self._part) for name, total in self._sums.items()}

    def _extremes(self) -> dict[str, Observed]:
        if self._seen is not None:
            return self._seen
        seen: dict[str, Observed] = {}
        session = Session(self._watched, level="disabled")
        for position in range(len(self._part)):
            inputs = self._part[position].inputs
            for name, values in {**inputs, **session.run(inputs)}.items():
                if values.dtype.kind != "f" or not values.size:
                    continue
                low, high = float(values.min()), float(values.max())
                if not np.isfinite([low, high]).all():
                    detail = f"activation {name} is NaN or infinite"
                    hint = "check the weights and the preprocessing"
                    raise BuildError(BuildCode.QUANTISE, detail, hint)
                known = seen.setdefault(name, Observed(low, high))
                known.low, known.high = min(known.low, low), max(known.high, high)
                self._add_up(name, values)
            self._advance()
        self._seen = seen
        return seen

    def _add_up(self, name: str, values: NDArray[np.generic]) -> None:
        axis = self._channels.get(name)
        if axis is not None and values.ndim > 1:
            others = tuple(i for i in range(values.ndim) if i != axis % values.ndim)
            mean = np.asarray(values.mean(axis=others, dtype=np.float64))
            self._sums[name] = self._sums[name] + mean if name in self._sums else mean

    def _count(self, seen: dict[str, Observed]) -> None:
        if self._counted:
            return
        session = Session(self._watched, level="disabled")
        for position in range(len(self._part)):
            inputs = self._part[position].inputs
            for name, values in {**inputs, **session.run(inputs)}.items():
                if entry := seen.get(name):
                    entry.count(values)
        self._counted = True


def save_ranges(ranges: Mapping[str, tuple[float, float]], path: Path) -> None:
    """Write ranges as ONNX Runtime's quantiser reads them."""
    arrays = {
        name: (np.array([low], np.float32), np.array([high], np.float32))
        for name, (low, high) in ranges.items()
    }
    # whatever chose them, they are a minimum and a maximum now
    save_tensors_data(TensorsData(CalibrationMethod.MinMax, arrays), path)


def percentile(seen: Observed) -> tuple[float, float]:
    """Leave out the outermost ten-thousandth on each side."""
    if seen.counts is None or not seen.counts.sum():
        return seen.low, seen.high
    edges, share = seen.edges(), np.cumsum(seen.counts) / seen.counts.sum()
    low = edges[int(np.searchsorted(share, 1 - PERCENTILE))]
    high = edges[min(int(np.searchsorted(share, PERCENTILE)) + 1, BINS)]
    return float(min(low, 0.0)), float(max(high, 0.0))


def entropy(seen: Observed) -> tuple[float, float]:
    """Clip where the values rounded to eight bits tell most about the values themselves.

    For each threshold, the values beyond it are moved onto it, the histogram is rounded to so
    many levels, and the divergence of the one from the other (Kullback, Leibler) is taken.
    """
    if seen.counts is None or not seen.counts.sum():
        return seen.low, seen.high
    centres = (seen.edges()[:-1] + seen.edges()[1:]) / 2
    top = max(abs(seen.low), abs(seen.high))
    sizes, _ = np.histogram(np.abs(centres), bins=BINS, range=(0, top), weights=seen.counts)
    # zeros survive any scale: as they are most of what a ReLU lets through, they would decide
    sizes[0] = 0
    best, least = BINS, np.inf
    for kept in range(_LEVELS, BINS + 1, _STEP):
        divergence = _divergence(sizes, kept)
        if divergence < least:
            best, least = kept, divergence
    limit = top * best / BINS
    return max(seen.low, -limit), min(seen.high, limit)


def _divergence(sizes: NDArray[np.float64], kept: int) -> float:
    clipped = sizes[:kept].copy()
    clipped[-1] += sizes[kept:].sum()
    group = np.arange(kept) * _LEVELS // kept
    filled = sizes[:kept] > 0
    sums = np.bincount(group, weights=sizes[:kept], minlength=_LEVELS)
    members = np.bincount(group, weights=filled, minlength=_LEVELS)
    rounded = np.where(filled, sums[group] / np.maximum(members[group], 1), 0)
    if not rounded.sum():
        return float("inf")
    told, wanted = rounded / rounded.sum(), clipped / clipped.sum()
    both = (told > 0) & (wanted > 0)
    # what is missing entirely counts as the smallest probability there is
    lost = float(wanted[(wanted > 0) & ~both].sum())
    return float((wanted[both] * np.log(wanted[both] / told[both])).sum()) + lost * 20.0


def _watch_everything(model: Path, target: Path) -> None:
    """Make every floating-point activation an output."""
    proto = onnx.load(model)
    inferred = onnx.shape_inference.infer_shapes(proto)
    floats = {
        value.name
        for value in inferred.graph.value_info
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    }
    given = {value.name for value in proto.graph.output}
    made = [name for node in proto.graph.node for name in node.output]
    for name in made:
        if name in floats and name not in given:
            proto.graph.output.append(
                onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
            )
    onnx.save(proto, target)
