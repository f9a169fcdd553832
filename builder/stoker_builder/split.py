"""Which samples calibrate, which choose and which certify: never the same ones.

Three parts, by content hash: *calibration* finds value ranges, *selection* tells hopeless
candidates from good ones as often as the search likes, *certification* judges what is left,
once. A figure from samples that were looked at before is too good to be true.

=========  ===========  =========  =============
different  calibration  selection  certification
=========  ===========  =========  =============
20         4            1          15
100        20           8          72
800        100          70         630
10,000     100          200        9,700
=========  ===========  =========  =============

A data set that keeps calibration or selection apart certifies on all the others.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from stoker_builder.data import (
    DataSet,
    Sample,
    Samples,
    calibration_of,
    content_digest,
    each,
    label_digest,
    read,
    selection_of,
)
from stoker_builder.errors import BuildCode, BuildError
from stoker_contract.manifest import DataDigest

CALIBRATION_SAMPLES: Final = 100
MAX_CALIBRATION_SHARE: Final = 0.2
SELECTION_SAMPLES: Final = 200
# of what calibration leaves; choosing needs less certainty than certifying
MAX_SELECTION_SHARE: Final = 0.1
MIN_SAMPLES: Final = 5


@dataclass(frozen=True, slots=True)
class Part:
    """Some samples of a data set, by index, with the digest of each.

    Attributes:
        labels: digests of what is known about each beside its inputs.
    """

    samples: Samples
    indices: tuple[int, ...]
    digests: tuple[str, ...]
    note: str = ""
    labels: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int, /) -> Sample:
        return read(self.samples, self.indices[position])

    @property
    def identity(self) -> str:
        """One digest of the samples in their order, and of what is known about them."""
        return hashlib.sha256("\n".join((*self.digests, *self.labels)).encode()).hexdigest()

    @property
    def record(self) -> DataDigest:
        """What the manifest says about it. The order of the samples does not matter."""
        joined = "\n".join(sorted(self.digests)).encode()
        digest = hashlib.sha256(joined).hexdigest()
        return DataDigest(digest=digest, samples=len(self), note=self.note[:256])


@dataclass(frozen=True, slots=True)
class Split:
    """The three parts, and how many samples were left out for being there twice.

    Attributes:
        selection: look at it as often as you like; what it says goes into no manifest.
        certification: to be answered once by each candidate that is to be judged.
    """

    calibration: Part
    selection: Part
    certification: Part
    duplicates: int


def split(
    data: DataSet,
    *,
    calibration_samples: int = CALIBRATION_SAMPLES,
    selection_samples: int = SELECTION_SAMPLES,
    certification_samples: int | None = None,
    advance: Callable[[], object] = lambda: None,
) -> Split:
    """Divide a data set by content.

    Samples kept apart by the data set itself are used where there are any; else the first
    samples in the order of their digests are set aside, which is as good as a draw and the
    same every time.

    Args:
        data: the data set.
        calibration_samples: at most so many, and never more than a fifth of the data set.
        selection_samples: at most so many, and never more than a tenth of what is left then.
        certification_samples: at most so many, again by digest; None takes all.
        advance: called for each sample that was read.

    Raises:
        BuildError: ``CALIBRATION_OVERLAP`` when the data set offers the same sample for two
            of the parts, ``DATA_EMPTY`` when there are too few to divide.
    """
    rest, duplicates = _unique(data.samples, advance)
    apart = {
        name: (samples, _unique(samples, advance)[0])
        for name, samples in (
            ("calibration", calibration_of(data)),
            ("selection", selection_of(data)),
        )
        if samples is not None
    }
    _refuse_overlap({**{name: own for name, (_, own) in apart.items()}, "certification": rest})
    if len(rest) < (MIN_SAMPLES if len(apart) < 2 else 1):  # noqa: PLR2004  both are apart
        detail = f"{len(rest)} different samples can not be divided"
        hint = f"give at least {MIN_SAMPLES}; about 300 are needed to certify one point"
        raise BuildError(BuildCode.DATA_EMPTY, detail, hint)
    parts = {}
    for name, most, share in (
        ("calibration", calibration_samples, MAX_CALIBRATION_SHARE),
        ("selection", selection_samples, MAX_SELECTION_SHARE),
    ):
        if name in apart:
            samples, own = apart[name]
            parts[name] = _part(samples, own[:most], "kept apart by the data set")
        else:
            chosen, rest = _set_aside(rest, min(most, max(1, int(len(rest) * share))))
            parts[name] = _part(data.samples, chosen, "set aside by content hash")
    certification = _part(data.samples, _limit(rest, certification_samples), data.note)
    return Split(parts["calibration"], parts["selection"], certification, duplicates)


_Entry = tuple[int, str, str]  # index, digest, digest of the label


def _unique(samples: Samples, advance: Callable[[], object]) -> tuple[list[_Entry], int]:
    seen: dict[str, tuple[int, str]] = {}
    total = 0
    for index, sample in enumerate(each(samples)):
        seen.setdefault(content_digest(sample), (index, label_digest(sample)))
        total += 1
        advance()
    entries = [(index, digest, label) for digest, (index, label) in seen.items()]
    return entries, total - len(seen)


def _refuse_overlap(parts: dict[str, list[_Entry]]) -> None:
    names = list(parts)
    for position, one in enumerate(names):
        first_of = {digest: index for index, digest, _ in parts[one]}
        for other in names[position + 1 :]:
            both = [index for index, digest, _ in parts[other] if digest in first_of]
            if both:
                detail = (
                    f"{len(both)} samples are offered for {one} and for {other}"
                    f" (the first is sample {both[0]})"
                )
                hint = "certify on samples that took no part in making or choosing the candidate"
                raise BuildError(BuildCode.CALIBRATION_OVERLAP, detail, hint)


def _set_aside(entries: list[_Entry], count: int) -> tuple[list[_Entry], list[_Entry]]:
    """The first so many in the order of their digests, and the others in their own order."""
    by_digest = sorted(entries, key=lambda entry: entry[1])
    return by_digest[:count], sorted(by_digest[count:])


def _limit(entries: list[_Entry], count: int | None) -> list[_Entry]:
    return entries if count is None else sorted(_set_aside(entries, count)[0])


def _part(samples: Samples, entries: Sequence[_Entry], note: str) -> Part:
    indices, digests, labels = zip(*entries, strict=True) if entries else ((), (), ())
    return Part(samples, tuple(indices), tuple(digests), note, tuple(labels))
