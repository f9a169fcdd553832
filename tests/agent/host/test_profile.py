"""What a device finds out about itself, on this machine and on others."""

import platform
from pathlib import Path

import pytest

from stoker_agent.host.figures import Machine, clock_synchronised, disk, memory
from stoker_agent.host.profile import detect_profile
from stoker_contract.reported import Capacity
from stoker_contract.target import Arch, Runtime

JETSON_CPUINFO = "".join(
    f"processor\t: {core}\nFeatures\t: fp asimd {extra}crc32\nCPU part\t: 0xd42\n\n"
    for core, extra in ((0, "asimddp "), (1, "asimddp "), (2, ""))
)


def write(path: Path, text: str) -> None:
    """Write a file of a made-up system."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_this_machine_knows_itself() -> None:
    """Architecture, cores, memory and installed runtimes are found without any setting."""
    profile = detect_profile({"site": "berlin"})

    assert profile.arch == platform.machine()
    assert profile.cores > 0
    assert profile.memory_bytes > 0
    assert profile.labels == {"site": "berlin"}
    assert set(profile.runtimes) <= {runtime.value for runtime in Runtime}


def test_a_jetson_is_recognised(tmp_path: Path) -> None:
    """Module, L4T and CUDA are read from where NVIDIA puts them."""
    write(tmp_path / "proc/cpuinfo", JETSON_CPUINFO)
    write(tmp_path / "proc/meminfo", "MemTotal:        7825448 kB\n")
    write(tmp_path / "proc/device-tree/model", "NVIDIA Jetson Orin Nano\0")
    write(tmp_path / "etc/nv_tegra_release", "# R36 (release), REVISION: 4.3, GCID: 1, BOARD: x\n")
    write(tmp_path / "usr/local/cuda/version.json", '{"cuda": {"name": "x", "version": "12.6.68"}}')

    profile = detect_profile({}, root=tmp_path, machine="aarch64")

    assert profile.arch is Arch.AARCH64
    assert profile.cores == 3
    assert profile.memory_bytes == 7825448 * 1024
    assert profile.module == "NVIDIA Jetson Orin Nano"
    assert (profile.l4t, profile.cuda) == ("36.4.3", "12.6.68")


def test_modules_of_one_kind_are_told_apart(tmp_path: Path) -> None:
    """The part number names the module, the chip its GPU, a file name TensorRT."""
    names = "nvidia,p3768-0000+p3767-0005\0nvidia,p3767-0005\0nvidia,tegra234\0"
    write(tmp_path / "proc/device-tree/compatible", names)
    write(tmp_path / "proc/device-tree/model", "NVIDIA Jetson Orin Nano Developer Kit\0")
    library = tmp_path / "usr/lib/aarch64-linux-gnu"
    write(library / "libnvinfer.so.8.6.2", "")
    write(library / "libnvinfer.so.10.3.0", "")
    write(library / "libnvinfer.so.10", "")
    write(library / "libnvinfer_plugin.so.10.3.0", "")

    profile = detect_profile({}, root=tmp_path, machine="aarch64")

    assert (profile.module, profile.gpu_sm) == ("orin-nano-8gb", "87")
    assert profile.tensorrt == profile.runtimes["tensorrt"] == "10.3.0"


def test_only_what_every_core_can_do_is_promised(tmp_path: Path) -> None:
    """An instruction that the small cores lack would crash an engine that is moved to one."""
    write(tmp_path / "proc/cpuinfo", JETSON_CPUINFO)

    profile = detect_profile({}, root=tmp_path, machine="arm64")

    assert profile.isa == ("asimd",)


def test_a_machine_without_any_file_is_still_described(tmp_path: Path) -> None:
    """What can not be found out is absent, not an error."""
    profile = detect_profile({}, root=tmp_path, machine="x86_64")

    assert (profile.isa, profile.memory_bytes, profile.l4t, profile.module) == ((), 0, None, None)


def test_an_architecture_without_artifacts_is_named() -> None:
    """A machine that stoker can not serve is told so in a sentence."""
    with pytest.raises(ValueError, match="riscv64; stoker has artifacts for x86_64, aarch64"):
        detect_profile({}, machine="riscv64")


def test_figures_of_this_machine_are_plausible(tmp_path: Path) -> None:
    """Disk and memory have a size, and never more free than there is."""
    machine = Machine(detect_profile({}), tmp_path)

    for capacity in (machine.disk(), machine.memory()):
        assert 0 < capacity.free_bytes <= capacity.total_bytes
    assert machine.figures(5).server_rss_bytes == 5
    assert machine.figures().agent_rss_bytes > 0
    assert machine.time_trusted() is clock_synchronised()


def test_a_disk_that_is_gone_is_no_error(tmp_path: Path) -> None:
    """A missing folder has no space."""
    assert disk(tmp_path / "nothing") == Capacity()


@pytest.mark.parametrize("version", [1, 2])
def test_the_limit_of_the_control_group_counts(tmp_path: Path, version: int) -> None:
    """A service with a memory limit must not plan with the memory of the whole machine."""
    write(tmp_path / "proc/meminfo", "MemTotal: 8000 kB\nMemAvailable: 6000 kB\n")
    if version == 2:
        write(tmp_path / "proc/self/cgroup", "0::/system.slice/agent\n")
        group = tmp_path / "sys/fs/cgroup/system.slice"
        write(group / "memory.max", str(3000 * 1024))
        write(group / "memory.current", str(1000 * 1024))
        write(group / "agent/memory.max", "max\n")
        write(group / "agent/memory.current", "5\n")
    else:
        write(tmp_path / "proc/self/cgroup", "5:cpu:/x\n4:memory:/agent\n0::/\n")
        group = tmp_path / "sys/fs/cgroup/memory"
        write(group / "agent/memory.limit_in_bytes", str(3000 * 1024))
        write(group / "agent/memory.usage_in_bytes", str(1000 * 1024))
        write(group / "memory.limit_in_bytes", "9223372036854771712")
        write(group / "memory.usage_in_bytes", "5")

    limited = memory(tmp_path)

    assert limited == Capacity(total_bytes=3000 * 1024, free_bytes=2000 * 1024)
