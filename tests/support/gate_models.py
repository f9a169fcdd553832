"""Candidates whose true loss is known, for simulating how often the gates are wrong.

Each draws the scores of a reference and of a candidate that loses exactly so much on average,
in the way that a kind of damage does.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stoker_builder.accuracy.evaluate import Answers
from stoker_builder.data import Sample
from stoker_builder.metrics import Basis, Metric, Outputs, Table

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Share:
    """A metric of which only the scores matter here."""

    name: str = "share"
    basis: Basis = "labels"
    lower_is_better: bool = False
    span: float = 1.0

    def score(self, outputs: Outputs, reference: Outputs, sample: Sample) -> float:
        """Not called."""
        raise NotImplementedError


@dataclass(frozen=True)
class Recall:
    """Found of wanted, over all samples: rows of ``found, wanted``."""

    name: str = "recall"
    basis: Basis = "labels"
    lower_is_better: bool = False
    span: float = 1.0

    def score(self, outputs: Outputs, reference: Outputs, sample: Sample) -> Table:
        """Not called."""
        raise NotImplementedError

    def aggregate(self, table: Table) -> float:
        """The value."""
        found, wanted = table.sum(axis=0)
        return float(found / wanted)


Pair = tuple[Answers, Answers]
Draw = Callable[[np.random.Generator, int, float], Pair]


def answers_of(table: Numbers, groups: tuple[str, ...] | None = None) -> Answers:
    """Answers with one row of scores for each sample."""
    rows = table.reshape(len(table), -1)
    return Answers(
        rows,
        np.ones(len(rows), dtype=np.int64),
        np.full(len(rows), np.inf),
        np.ones(len(rows), dtype=np.bool_),
        groups or ("",) * len(rows),
    )


def flips(rng: np.random.Generator, n: int, loss: float, *, share: float = 0.03) -> Pair:
    """Answers flip in both directions, ``share`` of them altogether."""
    outcome = rng.choice(3, n, p=[(share + loss) / 2, (share - loss) / 2, 1 - share])
    return answers_of(np.where(outcome == 1, 0.0, 1.0)), answers_of(
        np.where(outcome == 0, 0.0, 1.0)
    )


def one_way(rng: np.random.Generator, n: int, loss: float) -> Pair:
    """Answers break and none is repaired."""
    return answers_of(np.ones(n)), answers_of((rng.random(n) >= loss).astype(np.float64))


def noise(rng: np.random.Generator, n: int, loss: float) -> Pair:
    """Every score moves a little."""
    before = rng.uniform(0.4, 0.8, n)
    return answers_of(before), answers_of(np.clip(before - rng.normal(loss, 0.05, n), 0, 1))


def rare_ruin(rng: np.random.Generator, n: int, loss: float) -> Pair:
    """Most scores stay; a few samples lose everything."""
    before = np.full(n, 0.99)
    return answers_of(before), answers_of(np.where(rng.random(n) < loss / 0.99, 0.0, before))


def missed(rng: np.random.Generator, n: int, loss: float) -> Pair:
    """Of several things in each sample, one is missed here and there."""
    wanted = 1 + rng.poisson(2, n)
    before = rng.binomial(wanted, 0.9)
    after = rng.binomial(before, 1 - loss / 0.9)
    return answers_of(np.column_stack([before, wanted])), answers_of(
        np.column_stack([after, wanted])
    )


def ruined(rng: np.random.Generator, n: int, loss: float) -> Pair:
    """Everything in a few samples is missed."""
    wanted = 1 + rng.poisson(2, n)
    before = rng.binomial(wanted, 0.9)
    after = np.where(rng.random(n) < loss / 0.9, 0, before)
    return answers_of(np.column_stack([before, wanted])), answers_of(
        np.column_stack([after, wanted])
    )


KINDS: Final[dict[str, tuple[Metric, Draw]]] = {
    "right or wrong, flips both ways": (Share(), flips),
    "right or wrong, flips one way": (Share(), one_way),
    "scores, a little everywhere": (Share(), noise),
    "scores, ruin here and there": (Share(), rare_ruin),
    "value of a set, a little everywhere": (Recall(), missed),
    "value of a set, ruin here and there": (Recall(), ruined),
}
