"""Scored answers as arrays, so that a build need not ask again what it has asked."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stoker_builder.accuracy.evaluate import Answers


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
