"""Ten spoken commands in noise, from voices that the network never heard.

The Debian program ``espeak-ng`` speaks them. A clip's name (word, voice, accent, pace, pitch)
decides what is said and the noise around it, so two builds hear the same; once in thousands the
program itself says a few milliseconds differently. Synthetic voices are no people: what is
certified here is what a faster artifact loses, not how well it understands you.
"""

import hashlib
import io
import itertools
import shutil
import subprocess
import wave
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stoker_builder.data import MemoryDataSet, Sample

WORDS: Final = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
ACCENTS: Final = ("en-us", "en-gb", "en-gb-scotland", "en-gb-x-rp", "en-029")
TAUGHT: Final = (  # voices, as the program names them
    "f1 f2 f4 m1 m2 m4 m6 m8 klatt klatt2 klatt4 adam Alicia Andrea Andy antonio aunty belinda"
    " benjamin boris david Denis Diogo Gene linda marcelo max miguel pablo victor"
)
HELD_OUT: Final = "f3 f5 m3 m5 m7 klatt3 Annie michael steph2 Hugo rob sandro"
PACES: Final = (130, 165, 200)  # words a minute
PITCHES: Final = (35, 60)

RATE: Final = 22_050
CLIP: Final = 22_050  # one second
WINDOW: Final = 512
STEP: Final = 220
BANDS: Final = 40
FRAMES: Final = 1 + (CLIP - WINDOW) // STEP
LOUDEST_NOISE: Final = 0.7  # of the speech
CALIBRATION: Final = 150
PREPROCESSING: Final = (
    f"one second at {RATE} Hz; log of {BANDS} mel bands, Hann windows of {WINDOW} every {STEP};"
    " mean 0, deviation 1 in each clip"
)

Sound = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Clip:
    """One word, said in one way."""

    word: str
    voice: str
    accent: str
    pace: int
    pitch: int

    @property
    def key(self) -> str:
        """Its name, which decides everything about it."""
        return f"{self.word}-{self.accent}+{self.voice}-{self.pace}-{self.pitch}"


def dataset(voices: str = "12") -> MemoryDataSet:
    """Return what so many held-out voices say; voices that taught calibrate.

    Raises:
        FileNotFoundError: there is no ``espeak-ng``; the message says what to install.
    """
    certify = clips(HELD_OUT.split()[: int(voices)])
    calibrate = drawn(clips(TAUGHT.split()), CALIBRATION)
    return MemoryDataSet(
        samples=samples(certify),
        name="commands",
        preprocessing=PREPROCESSING,
        labelled=True,
        note=f"right words in {len(certify)} noisy clips of {voices} voices never heard before",
        calibration=samples(calibrate),
    )


def clips(voices: Iterable[str]) -> list[Clip]:
    """All that some voices say."""
    ways = itertools.product(WORDS, voices, ACCENTS, PACES, PITCHES)
    return [Clip(word, voice, accent, pace, pitch) for word, voice, accent, pace, pitch in ways]


def drawn(all_of_them: list[Clip], count: int) -> list[Clip]:
    """Some of them, by the hash of their names: the same ones every time."""
    return sorted(all_of_them, key=lambda clip: _hash(clip.key))[:count]


def samples(of: list[Clip]) -> list[Sample]:
    """Have the clips spoken and turn them into what the network takes."""
    return [
        Sample(inputs={"x": features(sound)}, label=WORDS.index(clip.word), key=clip.key)
        for clip, sound in zip(of, heard(of), strict=True)
    ]


def heard(of: list[Clip], take: int = 0) -> list[Sound]:
    """Have clips spoken, each in its own noise, of which there are several takes.

    Raises:
        FileNotFoundError: there is no ``espeak-ng``.
    """
    if shutil.which("espeak-ng") is None:
        msg = "no voices: apt-get install espeak-ng"
        raise FileNotFoundError(msg)
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(lambda clip: in_noise(spoken(clip), f"{clip.key}#{take}"), of))


def spoken(clip: Clip) -> Sound:
    """The voice alone, from -1 to 1."""
    voice = ["-v", f"{clip.accent}+{clip.voice}", "-s", str(clip.pace), "-p", str(clip.pitch)]
    command = ["espeak-ng", *voice, "--stdout", clip.word]
    done = subprocess.run(command, capture_output=True, check=True)  # noqa: S603 - words of ours
    with wave.open(io.BytesIO(done.stdout)) as file:
        # written to a pipe, the file does not know its own length
        frames = file.readframes(CLIP * 4)
    return np.frombuffer(frames, dtype="<i2").astype(np.float32) / np.float32(32768)


def in_noise(voice: Sound, name: str) -> Sound:
    """Put a voice somewhere into a second of noise, louder or softer."""
    rng = np.random.default_rng(list(_hash(name)))
    audible = np.flatnonzero(np.abs(voice) > 0.01)  # noqa: PLR2004 - a hundredth is silence
    voice = voice[audible[0] : audible[-1] + 1][:CLIP] if len(audible) else voice[:CLIP]
    noise = rng.normal(size=CLIP)
    if rng.random() < 0.5:  # noqa: PLR2004 - a coin: hiss, or rumble
        noise = np.convolve(noise, np.ones(24) / 24, mode="same")
    loudness = np.sqrt(np.mean(np.square(voice))) if len(voice) else 1.0
    noise *= loudness * rng.uniform(0.02, LOUDEST_NOISE) / np.sqrt(np.mean(np.square(noise)))
    start = int(rng.integers(CLIP - len(voice) + 1))
    noise[start : start + len(voice)] += voice
    return noise.astype(np.float32)


def features(sound: Sound) -> NDArray[np.float32]:
    """Turn a second of sound into ``[1, 1, BANDS, FRAMES]``."""
    windows = np.lib.stride_tricks.sliding_window_view(sound, WINDOW)[::STEP]
    power = np.square(np.abs(np.fft.rfft(windows * np.hanning(WINDOW))))
    bands = np.log(power @ _mel_bands().T + 1e-6).T
    scaled = (bands - bands.mean()) / (bands.std() + 1e-6)
    return np.asarray(scaled, dtype=np.float32)[np.newaxis, np.newaxis]


def _mel_bands() -> NDArray[np.float64]:
    """``[BANDS, WINDOW // 2 + 1]`` triangles, evenly spaced as the ear hears."""
    highest = 2595 * np.log10(1 + RATE / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, highest, BANDS + 2) / 2595) - 1)
    bins = np.linspace(0, RATE / 2, WINDOW // 2 + 1)
    low, middle, high = (edges[i : i + BANDS, np.newaxis] for i in range(3))
    rising, falling = (bins - low) / (middle - low), (high - bins) / (high - middle)
    return np.asarray(np.clip(np.minimum(rising, falling), 0, None))


def _hash(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()
