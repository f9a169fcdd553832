"""Writing a release folder: all of it, or nothing."""

from pathlib import Path

import pytest

from stoker_builder.bench import BuildResult
from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.release import check_output, write_release


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    """Bytes and copied files are there, and nothing is left beside them."""
    source = tmp_path / "source"
    source.write_bytes(b"copied")

    write_release(tmp_path / "out" / "release", "m/1", {"a": b"given", "b": source})

    assert (tmp_path / "out" / "release" / "a").read_bytes() == b"given"
    assert (tmp_path / "out" / "release" / "b").read_bytes() == b"copied"
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["release"]


def test_what_can_not_be_written_leaves_nothing(tmp_path: Path) -> None:
    """A source that vanished stops the write, and no half of a release is seen."""
    with pytest.raises(BuildError) as caught:
        write_release(tmp_path / "release", "m/1", {"a": b"given", "b": tmp_path / "gone"})

    assert caught.value.code is BuildCode.OUTPUT_WRITE
    assert list(tmp_path.iterdir()) == []


def test_the_old_release_survives_a_failed_rewrite(tmp_path: Path, built: BuildResult) -> None:
    """Until the new folder is whole, the old one is the one that is there."""
    output = tmp_path / "release"
    manifest = built.manifest.encode()
    write_release(output, "tiny/1.0.0", {"manifest.json": manifest})

    with pytest.raises(BuildError):
        write_release(output, "tiny/1.0.0", {"manifest.json": tmp_path / "gone"})

    assert (output / "manifest.json").read_bytes() == manifest


def test_the_same_release_is_replaced(tmp_path: Path, built: BuildResult) -> None:
    """Building the same version again is allowed, and no old file stays behind."""
    output = tmp_path / "release"
    manifest = built.manifest.encode()
    write_release(output, "tiny/1.0.0", {"manifest.json": manifest, "old": b""})

    write_release(output, "tiny/1.0.0", {"manifest.json": manifest, "new": b""})

    assert sorted(p.name for p in output.iterdir()) == ["manifest.json", "new"]


def test_a_folder_with_something_else_is_refused(tmp_path: Path) -> None:
    """A folder of the user is not replaced by a release."""
    (tmp_path / "thesis").write_text("ten years of work")

    with pytest.raises(BuildError) as caught:
        check_output(tmp_path, "m/1")

    assert caught.value.code is BuildCode.OUTPUT_EXISTS


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    """The output is a folder, or does not exist yet."""
    (tmp_path / "release").write_text("")

    with pytest.raises(BuildError) as caught:
        check_output(tmp_path / "release", "m/1")

    assert caught.value.code is BuildCode.OUTPUT_EXISTS


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    """An empty folder is as good as none."""
    (tmp_path / "release").mkdir()

    write_release(tmp_path / "release", "m/1", {"a": b""})

    assert (tmp_path / "release" / "a").exists()
