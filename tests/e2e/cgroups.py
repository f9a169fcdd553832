"""Control groups for the nodes: each gets its own in every hierarchy, below the one we are in.

A container without one would share its groups with every other, and limits would mean nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PREFIX: Final = "stoker-e2e-"
# Not delegated by systemd, and limits of the machine rather than of a service.
_LEFT_ALONE: Final = {"cpuset", "hugetlb", "rdma", "misc", "net_cls", "net_prio", "perf_event"}


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """Where one hierarchy is mounted, and the group of it that we are in."""

    mounted: Path
    group: str

    def child(self, run: str, name: str = "") -> Path:
        """The folder of a group below ours: that of a run, or of a node in it."""
        return self.mounted / self.group.lstrip("/") / f"{PREFIX}{run}" / name


def hierarchies() -> list[Hierarchy]:
    """The hierarchies of this machine: version 1, version 2, or both."""
    groups: dict[str, str] = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, group = line.split(":", 2)
        groups[controllers] = group
    found = []
    for held, mounted in _mounts():
        for names, group in groups.items():
            wanted = {name for name in names.split(",") if name}
            if wanted == held and not wanted & _LEFT_ALONE:
                found.append(Hierarchy(mounted, group))
    return found


def _mounts() -> Iterator[tuple[set[str], Path]]:
    known = {name for line in Path("/proc/self/cgroup").read_text().splitlines()
             for name in line.split(":", 2)[1].split(",")}  # fmt: skip
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        if kind in {"cgroup", "cgroup2"}:
            yield set(options.split(",")) & (known - {""}), Path(before.split(" ")[4])


def make(run: str, name: str) -> list[Path]:
    """Make the groups of a node. Returns their folders."""
    folders = [hierarchy.child(run, name) for hierarchy in hierarchies()]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    return folders


def remove(run: str) -> None:
    """Remove every group of a run; no process is left in them by now."""
    for hierarchy in hierarchies():
        top = hierarchy.child(run)
        folders = [folder for folder in top.rglob("*") if folder.is_dir()]
        for folder in (*sorted(folders, reverse=True), top):
            try:
                folder.rmdir()
            except OSError:
                continue
