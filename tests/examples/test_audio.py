"""The audio example: clips that are the same every time, and a network that knows the words."""

import shutil
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from stoker_builder.data import load_data
from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.models.entrypoints import load_entry

AUDIO = Path(__file__).parents[2] / "examples" / "audio"
DATA = f"{AUDIO / 'data.py'}:dataset"
WEIGHTS = AUDIO / "weights.safetensors"

speaking = pytest.mark.skipif(
    shutil.which("espeak-ng") is None, reason="espeak-ng speaks the clips"
)


def module() -> ModuleType:
    """The example's data module."""
    return sys.modules[load_entry(DATA, BuildCode.DATA_ENTRY).__module__]


def test_voices_that_taught_never_certify() -> None:
    """The two lists of voices have none in common."""
    assert set(module().TAUGHT.split()).isdisjoint(module().HELD_OUT.split())


def test_features_have_one_shape_and_one_scale() -> None:
    """However loud, a second of sound is 40 bands with mean 0 and deviation 1."""
    sound = np.random.default_rng(1).normal(size=22_050).astype(np.float32)

    for loudness in (0.01, 1.0):
        bands = module().features(sound * loudness)
        assert bands.shape == (1, 1, 40, 98)
        assert bands.mean() == pytest.approx(0, abs=1e-4)
        assert bands.std() == pytest.approx(1, abs=1e-3)


def test_a_tone_is_loudest_in_its_own_band() -> None:
    """Higher tones are in higher bands."""
    seconds = np.arange(22_050) / 22_050
    bands = [
        module().features(np.sin(2 * np.pi * hertz * seconds).astype(np.float32))[0, 0].mean(1)
        for hertz in (300, 1000, 4000)
    ]

    loudest = [int(band.argmax()) for band in bands]

    assert loudest == sorted(loudest)
    assert loudest[0] < loudest[1] < loudest[2]


@speaking
def test_a_clip_sounds_the_same_every_time() -> None:
    """Voice and noise are decided by the clip's name; the program may stumble in a moment."""
    clips = module().clips(["f3"])[:2]

    first, second = (
        np.stack([sample.inputs["x"] for sample in module().samples(clips)]) for _ in range(2)
    )

    again, other = np.abs(first - second), np.abs(first[0] - first[1])
    assert np.median(again) < 0.01
    assert np.median(other) > 0.05


def test_noise_is_decided_by_its_name() -> None:
    """The same voice is put into the same noise again, into other noise under another name."""
    voice = np.sin(np.arange(8000) / 9).astype(np.float32)

    once, again, other = (module().in_noise(voice, name) for name in ("yes", "yes", "no"))

    assert np.array_equal(once, again)
    assert not np.array_equal(once, other)


@speaking
def test_commands_of_unheard_voices_are_understood() -> None:
    """The committed weights know at least 85 % of the words in voices that taught nothing."""
    torch.set_num_threads(1)
    model = load_entry(f"{AUDIO / 'model.py'}:factory", BuildCode.FACTORY)()
    assert isinstance(model, torch.nn.Module)
    model.load_state_dict(load_file(WEIGHTS))
    rows = module().samples(module().drawn(module().clips(module().HELD_OUT.split()), 120))

    with torch.inference_mode():
        answers = model.eval()(torch.from_numpy(np.concatenate([r.inputs["x"] for r in rows])))

    right = [a == r.label for a, r in zip(answers.argmax(1).tolist(), rows, strict=True)]
    assert np.mean(right) >= 0.85


def test_without_the_speaker_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A build on a machine without espeak-ng ends with what to install."""
    monkeypatch.setenv("PATH", "")

    with pytest.raises(BuildError, match="apt-get install espeak-ng") as raised:
        load_data(DATA)

    assert raised.value.code is BuildCode.DATA_ENTRY
