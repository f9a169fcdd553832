"""Targets: those that come with stoker, and files of the user's own."""

import subprocess
import sys
from pathlib import Path

import pytest

from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.pipeline import build
from stoker_builder.progress import Silence
from stoker_builder.targets import load_target, source_of, target_names
from support.tiny_build import request_for

LINE = 'name = "packing-line"\narch = "x86_64"\nisa = ["avx2"]\npreference = 25\n'


def written(folder: Path, text: str, name: str = "line.toml") -> str:
    """The path of a target file."""
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_target_of_the_user_s_own_is_built_for(tmp_path: Path) -> None:
    """The manifest carries it whole, so devices need no file."""
    mine = written(tmp_path, LINE + 'recipes = ["int8-pairs"]\n')

    result = build(
        request_for(tmp_path / "release", targets=(mine, "x86-64-v3"), precision="fp32"), Silence()
    )

    assert [a.target.name for a in result.manifest.artifacts] == ["packing-line", "x86-64-v3"]
    assert result.manifest.artifacts[0].target.isa == ("avx2",)


def test_what_is_printed_can_be_changed_and_given_back(tmp_path: Path) -> None:
    """Under its old name it would be mistaken for the other."""
    command = [sys.executable, "-m", "stoker_cli.main", "target", "show", "x86-64-vnni"]
    text = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    own = load_target(written(tmp_path, text.replace('name = "x86-64-vnni"', 'name = "own"')))

    assert own.model_copy(update={"name": "x86-64-vnni"}) == load_target("x86-64-vnni")
    with pytest.raises(BuildError, match="a target that comes with stoker"):
        load_target(written(tmp_path, text))


def test_the_list_names_processors_and_gpus() -> None:
    """Everything that ``--targets`` takes."""
    command = [sys.executable, "-m", "stoker_cli.main", "target", "list"]
    listed = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout

    assert all(name in listed for name in (*target_names(), "rtx-sm89"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name = ", "no TOML"),
        (LINE.replace('arch = "x86_64"', 'arch = "z80"'), "arch"),
        (LINE.replace("avx2", "AVX2 "), "isa.0"),
        (LINE.replace("preference = 25\n", ""), "preference: Field required"),
        (LINE + 'recipe = ["int8-pairs"]\n', "recipe: "),
        (LINE + 'recipes = ["int4"]\n', "no recipe 'int4'"),
        (LINE.replace("packing-line", "../packing"), "name"),
    ],
)
def test_a_file_that_is_no_target_says_where(tmp_path: Path, text: str, said: str) -> None:
    """The file, the key, and what to begin with."""
    with pytest.raises(BuildError, match=said) as refused:
        load_target(written(tmp_path, text))

    assert refused.value.code is BuildCode.TARGET_FILE
    assert "line.toml" in refused.value.detail


def test_a_file_that_can_not_be_read_is_named(tmp_path: Path) -> None:
    """It is missing, a folder, or no text."""
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "folder.toml").mkdir()
    for name in ("missing.toml", "folder.toml", "binary.toml"):
        with pytest.raises(BuildError, match=name) as refused:
            load_target(str(tmp_path / name))
        assert refused.value.code is BuildCode.TARGET_FILE


def test_two_files_with_one_name_are_refused(tmp_path: Path) -> None:
    """Their artifacts would get the same path."""
    both = (written(tmp_path, LINE, "a.toml"), written(tmp_path, LINE, "b.toml"))

    with pytest.raises(BuildError, match="same name"):
        build(request_for(tmp_path / "release", targets=both), Silence())


def test_every_target_that_comes_with_stoker_is_whole() -> None:
    """Each can be printed, and names recipes that there are."""
    for name in target_names():
        assert load_target(name).name == name
        assert f'name = "{name}"' in source_of(name)
