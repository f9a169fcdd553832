"""Writes the tables of docs/gates.md: worked out with the gate that ships, not simulated.

A candidate breaks some answers and repairs others. For each number of repaired answers there
is a largest number of broken ones with which it still passes; what remains is to add up the
probabilities of all outcomes at or below that line.
"""

import math
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stoker_builder.accuracy.evidence import SampleLosses, critical
from stoker_builder.accuracy.risk import Risk

PAGE: Final = Path(__file__).parents[1] / "gates.md"
BUDGET: Final = 0.01
SIZES: Final = (100, 300, 500, 800, 1000, 1500, 2000, 3000, 5000, 8000)
LOSSES: Final = (0.0, 0.001, 0.003, 0.005, 0.01, 0.015)
LIKELY: Final = 0.9
FLIPS: Final = (0.01, 0.02, 0.05)
_SIGMAS: Final = 6.0  # outcomes further out do not change the last digit


def tables() -> dict[str, str]:
    """Every table, by the name that the page has for it."""
    return {
        "alone": _chances(FLIPS[1], alpha=Risk(0.05, 1).next_alpha),
        "needed": _needed(),
        "slips": _slips(),
        "nothing": _nothing_seen(),
    }


def filled(page: str) -> str:
    """The page with its tables made anew."""
    for name, table in tables().items():
        block = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        page, count = block.subn(lambda match, t=table: match[1] + t + match[2], page)
        if count != 1:
            msg = f"{PAGE} has {count} places for table {name}"
            raise ValueError(msg)
    return page


def chance_to_pass(n: int, loss: float, flips: float, *, alpha: float) -> float:
    """Of a candidate whose true loss is known, with 0/1 scores.

    Args:
        n: certification samples.
        loss: broken less repaired, as a share of all answers.
        flips: broken and repaired.
        alpha: what the candidate may risk.
    """
    broken, repaired = (flips + loss) / 2, (flips - loss) / 2
    line = _line(n, alpha)
    of_repaired = _binomial(n, repaired)
    chance = 0.0
    for count, most in enumerate(line):
        if most >= 0 and count < len(of_repaired):
            # given so many repaired, the others are broken or neither
            of_broken = _binomial(n - count, broken / (1 - repaired))
            chance += of_repaired[count] * float(of_broken[: most + 1].sum())
    return min(chance, 1.0)


@lru_cache
def _line(n: int, alpha: float) -> tuple[int, ...]:
    """For each number of repaired answers, the most broken ones that still pass; -1 for none."""
    enough = critical(alpha)
    largest = _end(n, max(FLIPS) / 2)
    most, line = -1, []
    for repaired in range(largest):
        while _sure(most + 1, repaired, n) > enough:
            most += 1
        line.append(most)
    return tuple(line)


def _sure(broken: int, repaired: int, n: int) -> float:
    counts = np.array([repaired, n - broken - repaired, broken])
    return SampleLosses(np.array([-1.0, 0.0, 1.0]), counts).below(BUDGET)


@lru_cache(maxsize=4096)
def _binomial(n: int, p: float) -> NDArray[np.float64]:
    """The probabilities of 0, 1, 2 … as far as they matter."""
    if p <= 0:
        return np.ones(1)
    k = np.arange(_end(n, p))
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
    log_choose = log_factorial[n] - log_factorial[k] - log_factorial[n - k]
    return np.asarray(np.exp(log_choose + k * math.log(p) + (n - k) * math.log1p(-p)))


def _end(n: int, p: float) -> int:
    return min(n, int(n * p + _SIGMAS * math.sqrt(n * p) + _SIGMAS**2)) + 1


def _chances(flips: float, *, alpha: float) -> str:
    rows = [
        [
            f"{n:,}",
            *(f"{chance_to_pass(n, loss, max(flips, loss), alpha=alpha):.0%}" for loss in LOSSES),
        ]
        for n in SIZES
    ]
    return _table(["samples", *(f"loses {100 * loss:g} pp" for loss in LOSSES)], rows)


def _needed() -> str:
    rows = [
        [f"{100 * loss:g} pp", *(_first_enough(loss, flips) for flips in FLIPS)]
        for loss in LOSSES
        if loss < BUDGET / 1.5
    ]
    return _table(["true loss", *(f"{100 * f:g} % of answers change" for f in FLIPS)], rows)


def _first_enough(loss: float, flips: float) -> str:
    alpha = Risk(0.05, 1).next_alpha
    enough = (n for n in SIZES if chance_to_pass(n, loss, flips, alpha=alpha) >= LIKELY)
    found = next(enough, None)
    return f"more than {SIZES[-1]:,}" if found is None else f"{found:,}"


def _slips() -> str:
    """The worst over how many answers change, for candidates that lose exactly the budget."""
    rows = []
    for n in SIZES[1:]:
        worst = [
            max(chance_to_pass(n, BUDGET, flips, alpha=alpha) for flips in FLIPS)
            for alpha in (0.05, 0.04)
        ]
        rows.append([f"{n:,}", *(f"{share:.1%}" for share in worst)])
    return _table(["samples", "alone", "the favourite of several"], rows)


def _nothing_seen() -> str:
    rows = [[str(k), *(f"{_smallest(alpha):,}" for alpha in _alphas(k))] for k in (1, 2, 4, 8)]
    return _table(["candidates", "the favourite", "another, if none before it passed"], rows)


def _alphas(candidates: int) -> Iterator[float]:
    """What the first and the second candidate may risk."""
    risk = Risk(0.05, candidates)
    yield risk.next_alpha
    risk.settle(passed=False)
    yield risk.next_alpha if candidates > 1 else 0.05


def _smallest(alpha: float) -> int:
    low, high = 1, 10_000
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _sure(0, 0, middle) > critical(alpha) else (middle, high)
    return high


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in (head, *rows)]
    return "\n".join([lines[0], f"|{'---:|' * len(head)}", *lines[1:]]) + "\n"


def main() -> None:
    """Write the page again."""
    PAGE.write_text(filled(PAGE.read_text()))


if __name__ == "__main__":
    main()
