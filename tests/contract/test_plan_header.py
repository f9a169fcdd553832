"""Plans are read, and refused, without any TensorRT."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker_contract.codes import ReasonCode
from stoker_contract.errors import ContractError
from stoker_contract.plan_header import read_plan_header, why_plan_unfit
from stoker_contract.target import Runtime
from support.plans import TENSORRT_RTX, plan


def test_a_plan_says_who_made_it() -> None:
    """Runtime, version and length are in the first bytes."""
    header = read_plan_header(plan(b"weights"))

    assert (header.runtime, header.version, header.length) == (Runtime.TENSORRT, "10.3.0.26", 71)
    assert header.gpu_sms == ()


def test_a_plan_of_tensorrt_rtx_names_its_gpus() -> None:
    """It was compiled ahead of time for certain compute capabilities, a bit each."""
    header = read_plan_header(
        plan(magic=TENSORRT_RTX, version=(1, 7, 1, 116), capabilities=0b11000)
    )

    assert header.runtime is Runtime.TENSORRT_RTX
    assert header.gpu_sms == ("89", "120")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "at least 64 bytes"),
        (plan()[:63], "at least 64 bytes"),
        (plan(b"weights")[:-1], "it was cut or changed"),
        (plan(b"weights") + b"x", "it was cut or changed"),
        (b"\x08\x09" + plan()[2:], "no TensorRT plan"),
    ],
)
def test_what_is_no_whole_plan_is_refused(data: bytes, said: str) -> None:
    """A cut, padded or foreign file never reaches a runtime."""
    with pytest.raises(ContractError, match=said) as refused:
        read_plan_header(data)
    assert refused.value.code is ReasonCode.UNSAFE_MODEL


@given(st.binary(max_size=200))
def test_any_bytes_give_a_header_or_one_kind_of_error(data: bytes) -> None:
    """Nothing else comes out, whatever goes in."""
    try:
        length = read_plan_header(data).length
    except ContractError:
        return
    assert length == len(data)


@pytest.mark.parametrize(
    ("runtime", "version", "gpu_sm", "said"),
    [
        (Runtime.TENSORRT_RTX, "1.7.1.116", "89", None),
        (Runtime.TENSORRT_RTX, "1.7.1", None, None),
        (Runtime.TENSORRT_RTX, None, None, None),
        (Runtime.TENSORRT, "10.3.0", "87", "made by tensorrt-rtx"),
        (Runtime.TENSORRT_RTX, "1.8.0.1", "89", "made by tensorrt-rtx 1.7.1.116, this device has"),
        (Runtime.TENSORRT_RTX, "1.7.1.116", "86", "compute capability 89, 120, this GPU has 86"),
    ],
)
def test_a_plan_that_can_not_run_here_says_why(
    runtime: Runtime, version: str | None, gpu_sm: str | None, said: str | None
) -> None:
    """Another runtime, version or GPU; what is not known yet is not held against it."""
    header = read_plan_header(
        plan(magic=TENSORRT_RTX, version=(1, 7, 1, 116), capabilities=0b11000)
    )

    reason = why_plan_unfit(header, runtime, version=version, gpu_sm=gpu_sm)

    assert reason is None if said is None else said in (reason or "")
