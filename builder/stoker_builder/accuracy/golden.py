"""The golden set: a few samples and the answers that any device must give to them.

The closest calls are in it, since they are the first to change when something is wrong; but
none so close that rounding on another core could turn it, since then it would prove nothing.
"""

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stoker_builder.accuracy.evaluate import Answering, Answers
from stoker_builder.split import Part
from stoker_contract.manifest import Golden, Precision, SessionOptions

Arrays = Mapping[str, NDArray[np.generic]]

MIN_SAMPLES: Final = 16
MAX_SAMPLES: Final = 64
MAX_BYTES: Final = 16 * 1024**2  # of inputs and outputs, if there are not too few then
# of the largest answer: what rounding alone may change
TOLERANCE_FLOOR: Final = {
    Precision.FP32: 1e-3,
    Precision.FP16: 5e-3,
    Precision.BF16: 2e-2,
    Precision.INT8: 2e-2,
}
SPREAD_FACTOR: Final = 4.0  # the spread was seen on few samples and one machine


@dataclass(frozen=True, slots=True)
class GoldenSet:
    """Samples with the outputs that one artifact gave.

    Attributes:
        positions: which samples of the certification part.
        tolerance: absolute, in the unit of the outputs.
        spread: the largest difference seen between ways of computing the same file.
    """

    inputs: tuple[Arrays, ...]
    expected: tuple[Arrays, ...]
    positions: tuple[int, ...]
    tolerance: float
    spread: float
    classifies: bool

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def largest(self) -> float:
        """The largest absolute value that is expected."""
        return _largest(self.expected)

    def observed_elsewhere(self, outputs: Sequence[Arrays], precision: Precision) -> "GoldenSet":
        """Widen by what other kernels answered to the first samples.

        What they answered is what is expected of a device from now on. The tolerance only grows:
        it may be that of an accelerator.
        """
        pairs = zip(outputs, self.expected, strict=False)
        spread = max([self.spread, *(_difference(one, other) for one, other in pairs)])
        expected = (*outputs, *self.expected[len(outputs) :])
        tolerance = max(self.tolerance, _tolerance(expected, spread, precision))
        wider = replace(self, expected=expected, spread=spread, tolerance=tolerance)
        return wider.kept(wider.certain())

    def certain(self) -> list[int]:
        """The samples whose winner can not change within the tolerance."""
        if not self.classifies:
            return list(range(len(self)))
        return [i for i, answer in enumerate(self.expected) if _margin(answer) > 2 * self.tolerance]

    def kept(self, indices: Sequence[int]) -> "GoldenSet":
        """The set with these samples only; all of them if there would be none."""
        indices = indices or range(len(self))
        return replace(
            self,
            inputs=tuple(self.inputs[i] for i in indices),
            expected=tuple(self.expected[i] for i in indices),
            positions=tuple(self.positions[i] for i in indices),
        )

    def encode(self) -> bytes:
        """The ``.npz`` that travels. The same set gives the same bytes."""
        arrays = {
            f"input.{name}": np.stack([s[name] for s in self.inputs]) for name in self.inputs[0]
        }
        for name in self.expected[0]:
            arrays[f"expected.{name}"] = np.stack([answer[name] for answer in self.expected])
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **arrays)
        return buffer.getvalue()

    def describe(self, path: str, data: bytes) -> Golden:
        """The manifest's entry for the encoded set."""
        return Golden(
            path=path,
            digest=hashlib.sha256(data).hexdigest(),
            length=len(data),
            samples=len(self),
            agreement="argmax" if self.classifies else "allclose",
            tolerance=self.tolerance,
        )


def ways(session: SessionOptions) -> tuple[SessionOptions, ...]:
    """The ways in which a file may be computed on a device of the same target."""
    other_threads = 2 if session.intra_op_threads == 1 else 1
    threads = session.model_copy(update={"intra_op_threads": other_threads})
    other = session.model_copy(update={"graph_optimisation": "extended"})
    # OpenVINO has no levels of optimisation
    return (session, threads) if session.runtime else (session, threads, other)


def make_golden(
    engines: Sequence[Answering],
    part: Part,
    reference: Answers,
    *,
    precision: Precision,
    classifies: bool,
) -> GoldenSet:
    """Choose samples and record what an artifact answers.

    Args:
        engines: the artifact, loaded in every way in which a device may compute it, by
            whatever runtime is to run it there. The first gives the expected answers, the
            others say how far apart right answers can be; one alone is allowed.
        part: the certification samples.
        reference: what the FP32 reference answered: it says which calls are close.
        precision: decides how much rounding is normal.
        classifies: whether the largest entry of the first output is what counts.
    """
    first, *others = engines
    count = _sample_count(part, first.run(part[0].inputs))
    pool = _pool(reference, len(part), 2 * count)
    inputs, expected, spread = [], [], 0.0
    for position in pool:
        sample = part[position].inputs
        answer = first.run(sample)
        inputs.append(sample)
        expected.append(answer)
        spread = max([spread, *(_difference(answer, other.run(sample)) for other in others)])
    whole = GoldenSet(
        inputs=tuple(inputs),
        expected=tuple(expected),
        positions=tuple(pool),
        tolerance=_tolerance(expected, spread, precision),
        spread=spread,
        classifies=classifies,
    )
    return whole.kept(_alternate(whole.certain(), len(pool), count))


def _sample_count(part: Part, answer: Arrays) -> int:
    arrays = (*part[0].inputs.values(), *answer.values())
    fitting = MAX_BYTES // max(sum(array.nbytes for array in arrays), 1)
    return min(max(MIN_SAMPLES, min(fitting, MAX_SAMPLES)), len(part))


def _pool(reference: Answers, total: int, size: int) -> list[int]:
    """Positions to choose from: the closest calls first, then an even sweep.

    Where the metric can not tell how close a call is, there is only the sweep.
    """
    known = np.flatnonzero(np.isfinite(reference.margin))
    by_margin = known[np.argsort(reference.margin[known], kind="stable")]
    closest = by_margin[: size // 2].tolist()
    step = max(1, total // max(1, size // 2))
    sweep = [position for position in range(0, total, step) if position not in set(closest)]
    return [*closest, *sweep[: size - len(closest)]]


def _alternate(usable: Sequence[int], pool_size: int, count: int) -> list[int]:
    """Take from both halves of the pool in turn, in the order of the pool at last."""
    close = [index for index in usable if index < pool_size // 2]
    swept = [index for index in usable if index >= pool_size // 2]
    chosen = close[: max(count // 2, count - len(swept))]
    return sorted([*chosen, *swept[: count - len(chosen)]])


def _difference(one: Arrays, other: Arrays) -> float:
    return max(
        float(np.abs(one[name].astype(np.float64) - other[name].astype(np.float64)).max(initial=0))
        for name in one
    )


def _tolerance(expected: Sequence[Arrays], spread: float, precision: Precision) -> float:
    floor = TOLERANCE_FLOOR[precision] * max(_largest(expected), 1e-6)
    # rounded up to two digits: a tolerance with sixteen digits pretends to know
    return float(f"{max(floor, SPREAD_FACTOR * spread) * 1.005:.2g}")


def _largest(expected: Sequence[Arrays]) -> float:
    arrays = (array.astype(np.float64) for answer in expected for array in answer.values())
    return max(float(np.abs(array).max(initial=0.0)) for array in arrays)


def _margin(answer: Arrays) -> float:
    row = next(iter(answer.values())).reshape(-1).astype(np.float64)
    second, first = np.partition(row, -2)[-2:]
    return float(first - second)
