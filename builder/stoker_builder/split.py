"""Which samples calibrate and which certify: never the same ones."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from stoker_builder.data import DataSet, Sample, Samples, calibration_of, content_digest, each, read
from stoker_builder.errors import BuildCode, BuildError
from stoker_contract.manifest import DataDigest

CALIBRATION_SAMPLES: Final = 100
MAX_CALIBRATION_SHARE: Final = 0.2


@dataclass(frozen=True, slots=True)
class Part:
    """Some samples of a data set, by index, with the digest of each."""

    samples: Samples
    indices: tuple[int, ...]
    digests: tuple[str, ...]
    note: str = ""

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int, /) -> Sample:
        return read(self.samples, self.indices[position])

    @property
    def record(self) -> DataDigest:
        """What the manifest says about it. The order of the samples does not matter."""
        joined = "\n".join(sorted(self.digests)).encode()
        digest = hashlib.sha256(joined).hexdigest()
        return DataDigest(digest=digest, samples=len(self), note=self.note[:256])


@dataclass(frozen=True, slots=True)
class Split:
    """The two parts, and how many samples were left out for being there twice."""

    calibration: Part
    certification: Part
    duplicates: int


def split(
    data: DataSet,
    *,
    calibration_samples: int = CALIBRATION_SAMPLES,
    certification_samples: int | None = None,
    advance: Callable[[], object] = lambda: None,
) -> Split:
    """Divide a data set by content.

    Samples kept apart for calibration by the data set itself are used when there are any;
    else the first samples in the order of their digests, which is as good as a draw and the
    same every time.

    Args:
        data: the data set.
        calibration_samples: at most so many, and never more than a fifth of the data set.
        certification_samples: at most so many, again by digest; None takes all.
        advance: called for each sample that was read.

    Raises:
        BuildError: ``CALIBRATION_OVERLAP`` when the data set offers the same sample for
            both, ``DATA_EMPTY`` when there are too few to divide.
    """
    unique, duplicates = _unique(data.samples, advance)
    apart = calibration_of(data)
    if apart is not None:
        own, _ = _unique(apart, advance)
        _refuse_overlap(own, unique)
        calibration = _part(apart, own[:calibration_samples], "kept apart by the data set")
        rest = unique
    else:
        count = min(calibration_samples, int(len(unique) * MAX_CALIBRATION_SHARE))
        if count == 0:
            detail = f"{len(unique)} different samples can not be divided"
            hint = "give at least five samples; about 300 are needed to certify one point"
            raise BuildError(BuildCode.DATA_EMPTY, detail, hint)
        by_digest = sorted(unique, key=lambda entry: entry[1])
        calibration = _part(data.samples, by_digest[:count], "set aside by content hash")
        rest = sorted(by_digest[count:])
    certification = _part(data.samples, _limit(rest, certification_samples), data.note)
    return Split(calibration, certification, duplicates)


_Entry = tuple[int, str]  # index, digest


def _unique(samples: Samples, advance: Callable[[], object]) -> tuple[list[_Entry], int]:
    seen: dict[str, int] = {}
    total = 0
    for index, sample in enumerate(each(samples)):
        seen.setdefault(content_digest(sample), index)
        total += 1
        advance()
    return [(index, digest) for digest, index in seen.items()], total - len(seen)


def _refuse_overlap(calibration: Sequence[_Entry], certification: Sequence[_Entry]) -> None:
    both = {digest for _, digest in calibration} & {digest for _, digest in certification}
    if both:
        first = next(index for index, digest in certification if digest in both)
        detail = (
            f"{len(both)} samples are offered for calibration and for certification"
            f" (the first is sample {first})"
        )
        hint = "certify on samples that took no part in making the candidate"
        raise BuildError(BuildCode.CALIBRATION_OVERLAP, detail, hint)


def _limit(entries: list[_Entry], count: int | None) -> list[_Entry]:
    if count is None or count >= len(entries):
        return entries
    return sorted(sorted(entries, key=lambda entry: entry[1])[:count])


def _part(samples: Samples, entries: Sequence[_Entry], note: str) -> Part:
    indices, digests = zip(*entries, strict=True) if entries else ((), ())
    return Part(samples, tuple(indices), tuple(digests), note)
