"""Scoring against the golden set: within the tolerance, everywhere, and never by NaN."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from stoker_contract.codes import ReasonCode
from stoker_contract.manifest import DType, EngineIO, Golden, TensorSpec
from stoker_server.errors import ServeError
from stoker_server.golden import judge, read_golden
from stoker_server.worker import Outputs
from support import models

IO = EngineIO(
    inputs=(TensorSpec(name="x", dtype=DType.FP32, shape=(1, 3)),),
    outputs=(
        TensorSpec(name="y", dtype=DType.FP32, shape=(1, 3)),
        TensorSpec(name="z", dtype=DType.INT64, shape=(1,)),
    ),
)
Y = np.array([[0.1, 0.7, 0.2]], np.float32)
Z = np.array([5], np.int64)


def golden(agreement: str = "allclose", tolerance: float = 0.01) -> Golden:
    """A golden set with some agreement."""
    return Golden.parse_object(
        {
            "path": "m/1.0/m.golden.npz",
            "digest": "a" * 64,
            "length": 1,
            "samples": 1,
            "agreement": agreement,
            "tolerance": tolerance,
        }
    )


def outputs(y: models.FloatArray, z: "np.typing.NDArray[np.int64]" = Z) -> Outputs:
    """An answer of an engine."""
    return Outputs((y.tobytes(), z.tobytes()), (y.shape, z.shape), 0, 1)


@pytest.mark.parametrize(
    ("given", "agrees", "error"),
    [
        (outputs(Y), True, 0.0),
        (outputs(Y + np.float32(0.009)), True, 0.009),
        (outputs(Y + np.float32(0.011)), False, 0.011),
        (outputs(np.array([[0.1, 0.7, 0.25]], np.float32)), False, 0.05),
        (outputs(Y, np.array([6])), False, 1.0),
        (outputs(np.array([[0.1, np.nan, 0.2]], np.float32)), False, 1e308),
        (outputs(np.array([[0.1, np.inf, 0.2]], np.float32)), False, 1e308),
        (outputs(np.array([[0.1, 0.7]], np.float32)), False, 1e308),
    ],
)
def test_every_element_of_every_output_must_agree(
    given: Outputs, *, agrees: bool, error: float
) -> None:
    """One element off, one output off, one NaN: the sample does not agree."""
    verdict = judge(golden(), IO, (Y, Z), given)

    assert verdict.agrees is agrees
    assert verdict.worst_error == pytest.approx(error, rel=1e-3, abs=1e-6)


def test_argmax_asks_for_the_same_largest_entry_too() -> None:
    """Within a wide tolerance, the answer must still be the same class."""
    swapped = np.array([[0.7, 0.6, 0.2]], np.float32)

    assert judge(golden("allclose", 1.0), IO, (Y, Z), outputs(swapped)).agrees
    assert not judge(golden("argmax", 1.0), IO, (Y, Z), outputs(swapped)).agrees


def test_argmax_does_not_excuse_the_tolerance() -> None:
    """The right class with wrong figures does not agree."""
    assert not judge(golden("argmax"), IO, (Y, Z), outputs(Y * 2)).agrees


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"not an archive"])
def test_what_is_no_archive_is_malformed(tmp_path: Path, content: bytes) -> None:
    """A golden file that was signed and is garbage is refused by code."""
    path = tmp_path / "golden.npz"
    path.write_bytes(content)
    described = golden().model_copy(
        update={"digest": hashlib.sha256(content).hexdigest(), "length": len(content)}
    )
    with pytest.raises(ServeError) as caught:
        read_golden(path, described, IO)
    assert caught.value.code is ReasonCode.MALFORMED


def test_pickles_are_never_read(tmp_path: Path) -> None:
    """An array of objects would run code: it is refused."""
    path = tmp_path / "golden.npz"
    arrays = {"input.x": np.array([[object()]], dtype=object)}
    np.savez(path, **arrays)  # type: ignore[arg-type]
    content = path.read_bytes()
    described = golden().model_copy(
        update={"digest": hashlib.sha256(content).hexdigest(), "length": len(content)}
    )
    with pytest.raises(ServeError) as caught:
        read_golden(path, described, IO)
    assert caught.value.code is ReasonCode.MALFORMED
