"""What is committed works on any machine."""

import re
import subprocess

from support.environments import ROOT

# Folders that exist on one person's machine only. Those of a device (/opt, /etc, /var) are meant.
ONE_MACHINE = re.compile(rb"(?<![\w.])/(work|home/\w+|Users/\w+|root)/[\w.]")
TEXT = (".py", ".md", ".toml", ".json", ".sh", ".service", ".conf", ".yml", ".yaml", "")


def tracked() -> list[str]:
    done = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    return [name for name in done.stdout.splitlines() if (ROOT / name).is_file()]


def test_no_file_names_a_folder_of_one_machine() -> None:
    """No absolute path of somebody's checkout or home is in the tree."""
    guilty = {
        name: found[0].decode()
        for name in tracked()
        if (ROOT / name).suffix in TEXT
        and (found := ONE_MACHINE.search((ROOT / name).read_bytes()))
    }
    assert not guilty


def test_nothing_large_is_committed() -> None:
    """Models and photographs come from registries; only small weights are in the tree."""
    large = {name for name in tracked() if (ROOT / name).stat().st_size > 2_000_000}
    assert not large
