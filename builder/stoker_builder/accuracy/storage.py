"""Answers and golden sets as arrays, so that a build need not ask again what it has asked."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stoker_builder.accuracy.evaluate import Answers
from stoker_builder.accuracy.golden import GoldenSet
from stoker_builder.split import Part


def to_arrays(answers: Answers) -> dict[str, NDArray[Any]]:
    """Write the answers of one candidate."""
    return {
        "table": answers.table,
        "lengths": answers.lengths,
        "margin": answers.margin,
        "finite": answers.finite,
        "groups": np.array(answers.groups, dtype=np.str_),
    }


def from_arrays(arrays: Mapping[str, NDArray[Any]]) -> Answers:
    """Read what :func:`to_arrays` wrote.

    Raises:
        KeyError: it was something else.
    """
    return Answers(
        table=arrays["table"],
        lengths=arrays["lengths"],
        margin=arrays["margin"],
        finite=arrays["finite"],
        groups=tuple(str(group) for group in arrays["groups"]),
    )


def golden_to_arrays(golden: GoldenSet) -> dict[str, NDArray[Any]]:
    """Write a golden set without its inputs, which are samples."""
    answers = {
        f"{position}:{name}": array
        for position, answer in zip(golden.positions, golden.expected, strict=True)
        for name, array in answer.items()
    }
    return {
        **answers,
        "positions": np.array(golden.positions, np.int64),
        "bounds": np.array([golden.tolerance, golden.spread], np.float64),
    }


def golden_from_arrays(
    arrays: Mapping[str, NDArray[Any]], part: Part, *, classifies: bool
) -> GoldenSet:
    """Read what :func:`golden_to_arrays` wrote.

    Args:
        arrays: what it wrote.
        part: the samples that the positions are of.
        classifies: as when it was made.

    Raises:
        KeyError: it was something else.
    """
    positions = [int(position) for position in arrays["positions"]]
    answers: dict[int, dict[str, NDArray[Any]]] = {position: {} for position in positions}
    for key, array in arrays.items():
        position, separator, name = key.partition(":")
        if separator:
            answers[int(position)][name] = array
    tolerance, spread = (float(value) for value in arrays["bounds"])
    return GoldenSet(
        inputs=tuple(part[position].inputs for position in positions),
        expected=tuple(answers[position] for position in positions),
        positions=tuple(positions),
        tolerance=tolerance,
        spread=spread,
        classifies=classifies,
    )
