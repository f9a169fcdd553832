"""What the files of a board say, as JetPack writes them."""

import pytest

from stoker_contract import board

NVPMODEL = """
< POWER_MODEL ID=0 NAME=15W >
CPU_ONLINE CORE_0 1
< POWER_MODEL ID=2 NAME=MAXN_SUPER >
"""


@pytest.mark.parametrize(
    ("compatible", "model", "module", "gpu_sm"),
    [
        ("nvidia,p3768-0000+p3767-0005-super\0nvidia,tegra234\0", "x", "orin-nano-8gb", "87"),
        ("nvidia,p2888-0004\0nvidia,tegra194\0", "x", "agx-xavier-32gb", "72"),
        ("vendor,board\0", "A board of theirs\0", "A board of theirs", None),
        ("", "", None, None),
    ],
)
def test_a_module_is_known_by_its_part_number(
    compatible: str, model: str, module: str | None, gpu_sm: str | None
) -> None:
    """Else by the name that its device tree has, if it has one."""
    assert board.module_of(compatible, model) == module
    assert board.gpu_sm_of(compatible) == gpu_sm


def test_versions_are_read_as_they_are_written() -> None:
    """L4T, CUDA and the newest TensorRT; what says nothing is nothing."""
    assert board.l4t_of("# R36 (release), REVISION: 4.3, GCID: 1, BOARD: x") == "36.4.3"
    assert board.cuda_of('{"cuda" : {"name": "CUDA SDK", "version" : "12.6.68"}}') == "12.6.68"
    names = ("libnvinfer.so.8.6.2", "libnvinfer.so.10.3.0", "libnvinfer.so.10", "other.so.11.0.0")
    assert board.newest_tensorrt(names) == "10.3.0"
    assert (board.l4t_of(""), board.cuda_of("{}"), board.newest_tensorrt(())) == (None, None, None)


def test_a_power_mode_has_its_name_where_there_is_one() -> None:
    """A board that was tuned at 15 W has other kernels than one without a limit."""
    assert board.power_mode_of("pmode:0002", NVPMODEL) == "MAXN_SUPER"
    assert board.power_mode_of("pmode:0007", NVPMODEL) == "7"
    assert board.power_mode_of("pmode:0000", NVPMODEL) == "15W"
    assert board.power_mode_of("", NVPMODEL) is None
