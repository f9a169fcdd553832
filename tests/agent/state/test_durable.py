"""Durable writes, on a record of what was asked of the file system."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from stoker_agent.state import durable

OLD, NEW = b"old" * 1000, b"new" * 1000


@pytest.fixture
def operations(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The operations that decide what a power cut leaves, in order."""
    seen: list[str] = []

    def record(name: str, real: Callable[..., object]) -> None:
        def recorded(*arguments: object, **options: object) -> object:
            kind = name
            if name == "fsync":
                target = Path(f"/proc/self/fd/{arguments[0]}").readlink()
                kind = "fsync directory" if target.is_dir() else "fsync file"
            seen.append(kind)
            return real(*arguments, **options)

        monkeypatch.setattr(os, name, recorded)

    for name in ("write", "fsync", "replace", "rename"):
        record(name, getattr(os, name))
    return seen


def test_a_replacement_is_written_synced_renamed_and_synced(
    tmp_path: Path, operations: list[str]
) -> None:
    """In any other order a power cut could leave an empty or a torn file."""
    durable.replace(tmp_path / "slot.json", NEW)
    renames = [each for each in operations if each != "write"]

    assert renames[0] == "fsync file"
    assert renames[-1] == "fsync directory"
    assert set(renames[1:-1]) <= {"replace", "rename"}
    assert (tmp_path / "slot.json").read_bytes() == NEW
    assert (tmp_path / "slot.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("operation", ["open", "write", "fsync", "replace"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_failing_disk_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: str, code: int
) -> None:
    """Whichever step fails, the old bytes are there and nothing else is."""
    path = tmp_path / "slot.json"
    durable.replace(path, OLD)

    def fail(*_arguments: object, **_options: object) -> object:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, operation, fail)
        if operation == "replace":
            patch.setattr(Path, "replace", fail)
        with pytest.raises(OSError, match=os.strerror(code)):
            durable.replace(path, NEW)

    assert path.read_bytes() == OLD
    assert [each.name for each in tmp_path.iterdir()] == ["slot.json"]


def test_a_short_write_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel may take less than it was given."""
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, bytes(data[:7])))
    durable.replace(tmp_path / "file", NEW)

    assert (tmp_path / "file").read_bytes() == NEW


def test_what_a_torn_write_left_does_not_hinder_the_next(tmp_path: Path) -> None:
    """The temporary file of a former life is simply written over."""
    (tmp_path / ".slot.json.tmp").write_bytes(b"torn")
    durable.replace(tmp_path / "slot.json", NEW)

    assert [each.name for each in tmp_path.iterdir()] == ["slot.json"]
