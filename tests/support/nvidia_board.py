"""The files of a Jetson, in a folder."""

from pathlib import Path

FILES = {
    "proc/device-tree/compatible": "nvidia,p3768-0000+p3767-0005\0nvidia,tegra234\0",
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
    "proc/cpuinfo": "processor: 0\nFeatures\t: fp asimd asimddp\n",
    "proc/meminfo": "MemTotal:        7620000 kB\n",
    "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 1\n",
    "usr/lib/aarch64-linux-gnu/libnvinfer.so.10.3.0": "",
    "usr/local/cuda/version.json": '{"cuda": {"version": "12.6.68"}}',
    "var/lib/nvpmodel/status": "pmode:0001",
    "etc/nvpmodel.conf": "< POWER_MODEL ID=1 NAME=25W >",
}


def orin_nano(folder: Path) -> Path:
    """An Orin Nano 8 GB with JetPack 6.2, from its root."""
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder
