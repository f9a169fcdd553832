"""The Debian package: whole, confined to its folders, and it runs from where it was unpacked."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from support.environments import ROOT

pytestmark = [
    pytest.mark.timeout(600),  # it collects wheels, and packs them
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg-deb is not installed"),
    pytest.mark.skipif(
        not Path("/usr/bin/python3.11").exists(), reason="the package is for Python 3.11"
    ),
]
SCRIPTS = ("preinst", "postinst", "prerm", "postrm")


def run(*command: str | Path) -> str:
    done = subprocess.run(
        [str(word) for word in command], check=False, capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheelhouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheelhouse")
    return Path(run("scripts/wheelhouse", "--into", folder).strip())


@pytest.fixture(scope="module")
def package(wheelhouse: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("package")
    options = ("--wheelhouse", wheelhouse, "--into", folder)
    return Path(run("scripts/package", "deb", *options).strip())


@pytest.fixture(scope="module")
def unpacked(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    run("dpkg-deb", "--raw-extract", package, folder)
    return folder


def version(package: Path) -> str:
    return run("dpkg-deb", "--field", package, "Version").strip()


def test_the_wheelhouse_names_every_byte(wheelhouse: Path) -> None:
    """Every wheel in it is listed with its hash, and nothing else is listed."""
    listed = wheelhouse.with_suffix(".txt").read_text().splitlines()
    wheels = [name for name in run("tar", "-tf", wheelhouse).split() if name.endswith(".whl")]

    assert len(listed) == len(wheels)
    assert all(re.fullmatch(r"\S+==\S+ --hash=sha256:[0-9a-f]{64}", line) for line in listed)
    assert not [name for name in wheels if "torch" in name or name.startswith("./onnx-")]


def test_the_programs_run_from_the_package(unpacked: Path, package: Path) -> None:
    """Agent and server answer with the packaged environment alone."""
    (home,) = (unpacked / "opt/stoker/versions").iterdir()
    for program in ("stoker-agent", "stoker-server", "stoker-engine"):
        answer = run(home / "bin/python", "-I", home / "bin" / program, "--help")
        assert "usage" in answer.lower()
    command = (home / "bin/python", "-I", home / "bin/stoker-agent", "--version")
    assert run(*command).strip() == version(package)
    first = (home / "bin/stoker-agent").read_text().splitlines()[0]
    assert first == f"#!/opt/stoker/versions/{home.name}/bin/python"


def test_the_package_keeps_to_its_folders(package: Path) -> None:
    """Owned by root, writable by nobody else, and below /opt/stoker and /usr only."""
    for line in run("dpkg-deb", "--contents", package).splitlines():
        mode, owner, *_, path = line.split(" -> ")[0].split()
        assert owner == "root/root"
        assert mode[0] == "l" or (mode[5] != "w" and mode[8] != "w"), line
        assert re.match(r"\./($|opt/($|stoker/)|usr/($|bin/|lib/|share/))", path), path


def test_what_is_in_it_is_what_its_sums_say(unpacked: Path) -> None:
    """``dpkg --verify`` will find what was changed later."""
    run("sh", "-c", f"cd {unpacked} && md5sum --quiet --check DEBIAN/md5sums")
    named = {line.split("  ", 1)[1] for line in (unpacked / "DEBIAN/md5sums").open()}
    files = {
        str(path.relative_to(unpacked)) + "\n"
        for path in unpacked.rglob("*")
        if path.is_file() and not path.is_symlink() and "DEBIAN" not in path.parts
    }
    assert named == files


def test_the_scripts_are_shell_and_know_their_version(unpacked: Path, package: Path) -> None:
    """No placeholder is left, and a shell without extensions can read them."""
    for name in SCRIPTS:
        script = unpacked / "DEBIAN" / name
        run("sh", "-n", script)
        assert script.stat().st_mode & 0o111
        assert "@" not in script.read_text()
    units = unpacked / "usr/lib/systemd/system"
    assert (units / "stoker-server.socket").read_bytes() == (
        ROOT / "systemd/stoker-server.socket"
    ).read_bytes()


def test_an_older_package_is_refused_before_anything_is_replaced(
    unpacked: Path, package: Path
) -> None:
    """``preinst`` ends with a sentence when the installed version is newer, else in silence."""
    script = unpacked / "DEBIAN/preinst"
    older = subprocess.run(
        ["sh", script, "upgrade", "99.0"], check=False, capture_output=True, text=True
    )

    assert older.returncode == 1
    assert "nothing was changed" in older.stderr
    assert run("sh", script, "upgrade", version(package)) == ""
    assert run("sh", script, "install") == ""


def test_the_same_sources_make_the_same_package(
    wheelhouse: Path, package: Path, tmp_path: Path
) -> None:
    """Who has the wheels can check that a package is what it says."""
    again = run("scripts/package", "deb", "--wheelhouse", wheelhouse, "--into", tmp_path).strip()
    assert Path(again).read_bytes() == package.read_bytes()
