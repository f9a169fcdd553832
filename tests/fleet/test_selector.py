"""Which devices a selector means."""

import pytest

from stoker_contract.codes import ReasonCode
from stoker_contract.target import Arch, Profile
from stoker_fleet.core.selector import parse_selector
from stoker_fleet.errors import FleetError

BERLIN = Profile(
    arch=Arch.X86_64,
    isa=("avx2", "avx512_vnni"),
    runtimes={"onnxruntime": "1.22"},
    labels={"site": "berlin", "line": "3"},
)
PARIS = Profile(arch=Arch.AARCH64, gpu_sm="8.7", labels={"site": "paris"})


@pytest.mark.parametrize(
    ("selector", "selected"),
    [
        ("all", {"b-1", "p-1"}),
        (" all ", {"b-1", "p-1"}),
        ("b-1", {"b-1"}),
        ("b-1,p-1", {"b-1", "p-1"}),
        ("b-1, p-2", {"b-1"}),
        ("site=berlin", {"b-1"}),
        ("site=berlin,line=3", {"b-1"}),
        ("site=berlin,line=4", set()),
        ("arch=aarch64", {"p-1"}),
        ("arch = x86_64 , isa=avx2", {"b-1"}),
        ("isa=avx512_vnni", {"b-1"}),
        ("gpu_sm=8.7", {"p-1"}),
        ("runtime=onnxruntime", {"b-1"}),
        ("unheard=of", set()),
        ("labels=anything", set()),
    ],
)
def test_a_selector_means_ids_or_properties(selector: str, selected: set[str]) -> None:
    """Ids are alternatives, properties must all hold, and what is unknown selects nobody."""
    parsed = parse_selector(selector)

    assert {
        device
        for device, profile in (("b-1", BERLIN), ("p-1", PARIS))
        if parsed.selects(device, profile)
    } == selected


@pytest.mark.parametrize(
    "selector", ["", ",", "site=", "=berlin", "b-1,site=berlin", "b-1,,b-2", "all,b-1", "B 1"]
)
def test_what_is_no_selector_is_refused(selector: str) -> None:
    """Empty, mixed or misspelt selectors select nobody by being refused, never everybody."""
    with pytest.raises(FleetError) as refused:
        parse_selector(selector)

    assert refused.value.code is ReasonCode.BAD_REQUEST
    assert "site=berlin" in refused.value.hint
