"""Decoding requests: whatever the bytes are, only our own error comes out."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stoker_contract.codes import ReasonCode
from stoker_contract.manifest import DType, EngineIO, TensorSpec
from stoker_server import oip
from stoker_server.errors import ServeError
from stoker_server.tensors import checked_call

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=12,
)
TENSOR = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["x", "flag", "z"]) | JSON,
        "datatype": st.sampled_from([*DType]) | JSON,
        "shape": st.lists(st.integers(-2, 5), max_size=4) | JSON,
        "data": st.lists(st.integers() | st.floats(), max_size=6) | JSON,
        "parameters": st.fixed_dictionaries(
            {}, optional={"binary_data_size": st.integers(-1, 20) | JSON}
        )
        | JSON,
    },
)
REQUEST = st.fixed_dictionaries(
    {},
    optional={
        "inputs": st.lists(TENSOR, max_size=3) | JSON,
        "outputs": st.lists(TENSOR, max_size=2) | JSON,
        "parameters": st.fixed_dictionaries({}, optional={"timeout": JSON}) | JSON,
        "id": JSON,
    },
)
ENGINE_IO = EngineIO(
    inputs=(
        TensorSpec(name="x", dtype=DType.UINT8, shape=(-1, 2)),
        TensorSpec(name="flag", dtype=DType.BOOL, shape=()),
    ),
    outputs=(TensorSpec(name="y", dtype=DType.FP32, shape=(-1,)),),
)


@settings(max_examples=400, deadline=None)
@given(REQUEST, st.binary(max_size=24))
def test_any_request_is_a_call_or_a_refusal(request: object, tail: bytes) -> None:
    """Nothing but a refusal by code comes out of a request, and a call fits the engine's io."""
    header = json.dumps(request).encode()
    try:
        decoded = oip.decode("m", "", header + tail, len(header))
        call = checked_call(ENGINE_IO, decoded.request)
    except ServeError as error:
        allowed = {ReasonCode.BAD_REQUEST, ReasonCode.TOO_LARGE}
        if error.code not in allowed:
            raise
        return
    sizes = [call.shapes[0][0] * 2, 1]
    assert [len(buffer) for buffer in call.buffers] == sizes


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=64), st.none() | st.integers(0, 80))
def test_any_bytes_are_a_refusal(body: bytes, header_bytes: int | None) -> None:
    """Random bytes never decode, and never raise anything else."""
    with pytest.raises(ServeError):
        checked_call(ENGINE_IO, oip.decode("m", "", body, header_bytes).request)


@pytest.mark.parametrize(
    ("datatype", "values"),
    [
        (DType.UINT8, [256]),
        (DType.UINT8, [-1]),
        (DType.INT8, [128]),
        (DType.INT32, [1.5]),
        (DType.INT64, [2**63]),
        (DType.UINT64, [2**64]),
        (DType.INT32, [True]),
        (DType.BOOL, [1]),
        (DType.FP32, ["1"]),
        (DType.FP32, [True]),
    ],
)
def test_json_values_are_never_bent_into_a_type(datatype: DType, values: list[object]) -> None:
    """A value that the type can not hold is refused, not wrapped or cut."""
    spec = TensorSpec(name="x", dtype=datatype, shape=(1,))
    io = EngineIO(inputs=(spec,), outputs=ENGINE_IO.outputs)
    tensor = {"name": "x", "datatype": datatype, "shape": [1], "data": values}
    body = json.dumps({"inputs": [tensor]}).encode()
    with pytest.raises(ServeError, match="not"):
        checked_call(io, oip.decode("m", "", body, None).request)
