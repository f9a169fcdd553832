"""PyTorch's own files run code when they load: only where they may, and where it can do nothing."""

import os
import pickle
import socket
import zipfile
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.models.bounded import Bounds
from stoker_builder.models.source import SourceModel, Terms, ingest
from support.builder_models import SHAPE, factory
from support.tiny_build import MODELS
from support.waiting import wait_until

EXAMPLE = {"x": np.ones(SHAPE, dtype=np.float32)}
TRUSTED = Terms(trust_code=True)


class Malice:
    """Does what it is told when it is unpickled."""

    def __init__(self, code: str) -> None:
        self.code = code

    def __reduce__(self) -> tuple[object, tuple[str, dict[str, object]]]:
        return exec, (self.code, {})


def take(path: Path, terms: Terms = TRUSTED) -> SourceModel:
    """Take the file in, in a folder of its own."""
    scratch = path.parent / f"{path.stem}-scratch"
    scratch.mkdir()
    return ingest(str(path), None, EXAMPLE, scratch, terms)


def refused(path: Path, terms: Terms = TRUSTED) -> BuildError:
    """The error of a file that has to be refused; no process of it is left."""
    with pytest.raises(BuildError) as caught:
        take(path, terms)
    assert caught.value.detail
    assert caught.value.hint
    assert not psutil.Process().children(recursive=True)
    return caught.value


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ["exported", "torchscript", "pickled"])
def test_a_trusted_file_of_any_kind_becomes_an_onnx_file(tmp_path: Path, kind: str) -> None:
    """What is in the file decides how it is loaded; the answers are those of the module."""
    path, module, sample = tmp_path / "model.pt", factory(), torch.ones(SHAPE)
    if kind == "exported":
        path = tmp_path / "model.pt2"
        torch.export.save(torch.export.export(module, (sample,)), path)
    elif kind == "torchscript":
        torch.jit.trace(module, sample).save(path)  # type: ignore[no-untyped-call]
    else:
        torch.save(module, path)

    source = take(path)

    assert source.kind == "torch"
    assert [spec.name for spec in source.io.inputs] == ["x"]
    assert any("without network" in note for note in source.notes)


@pytest.mark.parametrize("name", ["model.pt", "model.pt2", "model.pkl", "model.ckpt"])
def test_without_trust_nothing_is_opened(tmp_path: Path, name: str) -> None:
    """The error says what to do instead, and names the option."""
    marker = tmp_path / "ran"
    path = tmp_path / name
    path.write_bytes(pickle.dumps(Malice(f"open({str(marker)!r}, 'w')")))

    error = refused(path, Terms())

    assert error.code is BuildCode.UNSAFE_FORMAT
    assert "safetensors" in error.hint
    assert "--trust-model-code" in error.hint
    assert not marker.exists()


TRY_ALL = """
import os, socket
deeds = {{
    "reach the network": lambda: socket.create_connection(("127.0.0.1", {port}), 2),
    "write": lambda: open({file!r}, "w"),
    "delete": lambda: os.unlink({victim!r}),
    "move": lambda: os.rename({victim!r}, {file!r}),
    "signal": lambda: os.kill({pid}, 0),
    "see our environment": lambda: os.environ["SECRET_OF_THE_BUILDER"],
}}
managed = []
for name, deed in deeds.items():
    try:
        deed()
        managed.append(name)
    except (OSError, KeyError):
        pass
raise RuntimeError(f"managed {{managed}}")
"""


def test_what_trusted_code_does_stays_where_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No network, no writing, no process of others, and nothing of our environment."""
    monkeypatch.setenv("SECRET_OF_THE_BUILDER", "1")
    victim, path = tmp_path / "victim", tmp_path / "model.pt"
    victim.write_text("mine")
    with socket.create_server(("127.0.0.1", 0)) as server:
        code = TRY_ALL.format(
            port=server.getsockname()[1],
            file=str(tmp_path / "written"),
            victim=str(victim),
            pid=os.getpid(),
        )
        path.write_bytes(pickle.dumps(Malice(code)))

        error = refused(path)

    assert error.code is BuildCode.MODEL_FORMAT
    assert "managed []" in error.detail
    assert victim.read_text() == "mine"


@pytest.mark.parametrize(
    ("deed", "code"),
    [
        ("while True: pass", BuildCode.EXHAUSTED),
        ("import ctypes; ctypes.string_at(0)", BuildCode.EXHAUSTED),
        ("x = bytearray(2**36)", BuildCode.EXHAUSTED),
        ("import os, time\nif os.fork(): os._exit(1)\ntime.sleep(600)", BuildCode.EXHAUSTED),
        ("raise ValueError('\\x1b[2J' + 'long' * 10**6)", BuildCode.MODEL_FORMAT),
    ],
)
def test_trusted_code_that_fails_is_ended(tmp_path: Path, deed: str, code: BuildCode) -> None:
    """Whatever it does, the build goes on in time, and no process of it is left."""
    path = tmp_path / "model.pt"
    path.write_bytes(pickle.dumps(Malice(deed)))

    seconds = 8 if "while" in deed else 60
    error = refused(path, Terms(trust_code=True, bounds=Bounds(seconds, memory_bytes=2**34)))

    assert error.code is code
    assert error.detail.isprintable()
    assert len(error.detail) < 1000
    wait_until(lambda: not any(str(tmp_path) in _command_of(pid) for pid in psutil.pids()))


def test_what_trusted_code_leaves_is_looked_at_as_hostile(tmp_path: Path) -> None:
    """An answer of its own making, or an export that is a link, gets it nowhere."""
    code = (
        "import os, sys\n"
        "os.symlink('/etc/hostname', os.path.join(os.environ['HOME'], 'exported.onnx'))\n"
        "open(os.path.join(os.environ['HOME'], 'answer.json'), 'w').write('{}')\n"
        "os._exit(0)\n"
    )
    path = tmp_path / "model.pt"
    path.write_bytes(pickle.dumps(Malice(code)))

    assert refused(path).code is BuildCode.MODEL_FORMAT


def test_an_archive_that_unpacks_without_end_is_refused(tmp_path: Path) -> None:
    """A small archive that claims gigabytes is refused before anything unpacks it."""
    path = tmp_path / "bomb.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb/data.pkl", pickle.dumps(1))
        archive.writestr("bomb/data/0", bytes(2**27))

    error = refused(path)

    assert error.code is BuildCode.MODEL_FORMAT
    assert "unpack" in error.detail


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_state_dict_is_taken_without_trust(tmp_path: Path) -> None:
    """Reading a state dict runs no code: it is worth as much as safetensors."""
    path, state = tmp_path / "weights.pth", factory().state_dict()
    torch.save({"state_dict": state, "epoch": 3}, path)
    (tmp_path / "scratch").mkdir()

    source = ingest(f"{MODELS}:factory", path, EXAMPLE, tmp_path / "scratch")

    assert source.torch is not None
    assert source.torch.weights is not None
    assert source.torch.weights.suffix == ".safetensors"


@pytest.mark.parametrize("content", ["malice", "module", "nothing", "a list"])
def test_weights_that_are_no_state_dict_are_refused(tmp_path: Path, content: str) -> None:
    """Code hidden in weights never runs, trusted or not."""
    marker, path = tmp_path / "ran", tmp_path / "weights.pt"
    if content == "malice":
        path.write_bytes(pickle.dumps(Malice(f"open({str(marker)!r}, 'w')")))
    elif content != "nothing":
        torch.save({"module": factory(), "a list": [torch.ones(1)]}[content], path)
    (tmp_path / "scratch").mkdir()

    with pytest.raises(BuildError) as caught:
        ingest(f"{MODELS}:factory", path, EXAMPLE, tmp_path / "scratch", TRUSTED)

    assert caught.value.code is BuildCode.WEIGHTS
    assert caught.value.hint
    assert not marker.exists()


def _command_of(pid: int) -> str:
    try:
        return " ".join(psutil.Process(pid).cmdline())
    except psutil.Error:
        return ""
