"""What quantising one layer alone does to the answers: where to look first.

The damage of a node is measured with all others in floating point, as the mean square of what
it changes in the model's outputs, relative to their variance. Kinds of operators are measured
first; the nodes of kinds that do enough of it after, for as long as there is time.
"""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from stoker_builder.candidates.repairs import Damage
from stoker_builder.candidates.reverting import Reverter
from stoker_builder.kernels.sessions import Session, Tensor

SAMPLES: Final = 8
SECONDS: Final = 30.0
_WORTH: Final = 0.01  # a kind that does less of all damage is not looked into
Inputs = Mapping[str, Tensor]


class Damages:
    """Measures nodes of one quantised file.

    Args:
        reverter: the file.
        source: the file in floating point.
        inputs: a few samples.
        scratch: for the files that are tried.
    """

    def __init__(
        self, reverter: Reverter, source: Path, inputs: Sequence[Inputs], scratch: Path
    ) -> None:
        self._reverter = reverter
        self._inputs = inputs
        self._path = scratch / "one-layer.onnx"
        self._expected = _answers(source, inputs)

    def ranked(
        self, *, seconds: float = SECONDS, advance: Callable[[], object] = lambda: None
    ) -> list[Damage]:
        """Every quantised node, the worst first."""
        nodes = self._reverter.nodes
        kinds: dict[str, list[str]] = {}
        for name, op_type in nodes.items():
            kinds.setdefault(op_type, []).append(name)
        deadline = time.monotonic() + seconds
        by_kind = {kind: self._alone(names) for kind, names in kinds.items()}
        worth = sum(by_kind.values()) * _WORTH
        found: list[Damage] = []
        for kind in sorted(kinds, key=lambda kind: -by_kind[kind]):
            names = kinds[kind]
            for name in names:
                share = by_kind[kind] / len(names)
                measured = by_kind[kind] >= worth and time.monotonic() < deadline
                damage = self._alone([name]) if measured and len(names) > 1 else share
                found.append(Damage(name, kind, damage, measured or len(names) == 1))
                advance()
        return sorted(found, key=lambda one: -one.damage)

    def _alone(self, quantised: Collection[str]) -> float:
        """What is changed when only these nodes are quantised."""
        others = [name for name in self._reverter.nodes if name not in set(quantised)]
        self._reverter.save(self._path, others)
        # as the graph says, operator by operator: what is asked is what rounding does
        answered = _answers(self._path, self._inputs)
        changed = sum(
            float(np.mean((answered[name] - plain) ** 2)) / max(float(np.var(plain)), 1e-12)
            for name, plain in self._expected.items()
        )
        return changed if np.isfinite(changed) else float(np.finfo(np.float32).max)


def _answers(path: Path, inputs: Sequence[Inputs]) -> dict[str, np.ndarray]:
    session = Session(path, level="disabled")
    answers = [session.run(one) for one in inputs]
    return {
        name: np.concatenate(
            [np.asarray(answer[name], np.float64).reshape(-1) for answer in answers]
        )
        for name, first in answers[0].items()
        if first.dtype.kind == "f"
    }
