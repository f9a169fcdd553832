"""The data set of a build: what a user's entry point returns, checked once at the edge."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.models.entrypoints import call, load_entry

Tensor = NDArray[np.generic]


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample, ready for the model.

    Attributes:
        inputs: one array per model input, with the model's own batch axis ([1, 3, 224, 224]).
        label: the right answer, in whatever form the metric takes it (for a classifier the
            index of the class), or None when nobody knows it.
        key: a stable name for reports, a file name say.
        group: the slice of the data that it belongs to, night or a site say. No group may
            lose much more than the whole; without groups, classes are watched.
    """

    inputs: Mapping[str, Tensor]
    label: object
    key: str
    group: str = ""


class Samples(Protocol):
    """A sequence of samples; it may read and decode each one when it is asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample: ...


@runtime_checkable
class DataSet(Protocol):
    """What the function named by ``--data`` returns.

    It may also have

    - ``calibration: Samples`` and ``selection: Samples``, kept apart from the others to find
      value ranges and to choose among candidates. Without them, some of ``samples`` are set
      aside by content hash.
    - ``metric: Metric`` (:mod:`stoker_builder.metrics`), which says how good an answer
      is. Without it, a classifier is judged by its largest entry and any other model by how
      far its outputs are from those of FP32.
    """

    @property
    def samples(self) -> Samples:
        """The samples to certify on."""

    @property
    def name(self) -> str:
        """A short name."""

    @property
    def preprocessing(self) -> str:
        """What was done to the raw input, in words: it goes into the manifest."""

    @property
    def labelled(self) -> bool:
        """Whether every sample has a label. Without, the gate compares answers only."""

    @property
    def note(self) -> str:
        """Anything the report should say about this data."""


@dataclass(frozen=True, slots=True)
class MemoryDataSet:
    """A data set that is simply there; enough for most entry points."""

    samples: Samples
    name: str
    preprocessing: str = ""
    labelled: bool = True
    note: str = ""
    calibration: Samples | None = None
    selection: Samples | None = None
    metric: object = None


def load_data(entry: str, arguments: Mapping[str, str] | None = None) -> DataSet:
    """Call the data set's entry point.

    Args:
        entry: ``package.module:function`` or ``path/to/file.py:function``.
        arguments: keyword arguments for it.

    Raises:
        BuildError: ``DATA_ENTRY`` (no such function, it raised, it returned something
            else) or ``DATA_EMPTY``.
    """
    function = load_entry(entry, BuildCode.DATA_ENTRY)
    data = call(function, entry, BuildCode.DATA_ENTRY, **(arguments or {}))
    if not isinstance(data, DataSet):
        detail = f"{entry} returned {type(data).__name__}, which is not a data set"
        hint = "return an object with samples, name, preprocessing, labelled and note"
        raise BuildError(BuildCode.DATA_ENTRY, detail, hint)
    if len(data.samples) == 0:
        hint = "a gate without data fails: point it at samples that the model has never seen"
        raise BuildError(BuildCode.DATA_EMPTY, f"{entry} has no samples", hint)
    return data


def calibration_of(data: DataSet) -> Samples | None:
    """The samples that the data set keeps apart for calibration, if it does."""
    return _apart(data, "calibration")


def selection_of(data: DataSet) -> Samples | None:
    """The samples that the data set keeps apart for choosing among candidates, if it does."""
    return _apart(data, "selection")


def _apart(data: DataSet, name: str) -> Samples | None:
    samples: Samples | None = getattr(data, name, None)
    return samples if samples is not None and len(samples) else None


def read(samples: Samples, index: int) -> Sample:
    """Read one sample of a user's data set.

    Raises:
        BuildError: ``DATA_ENTRY``, when reading raises, or ``DATA_MISMATCH``, when it is
            no sample.
    """
    try:
        sample = samples[index]
    except Exception as error:  # not our code
        detail = f"reading sample {index} raised {type(error).__name__}: {error}"
        raise BuildError(BuildCode.DATA_ENTRY, detail, "check that file of the data set") from error
    answer: object = sample  # a user's sequence may hold anything
    if not isinstance(answer, Sample) or not answer.inputs:
        detail = f"sample {index} is {type(answer).__name__}, expected a Sample with inputs"
        raise BuildError(BuildCode.DATA_MISMATCH, detail, "return stoker_builder.data.Sample")
    return answer


def each(samples: Samples) -> Iterator[Sample]:
    """Read all samples in order. Raises as :func:`read`."""
    return (read(samples, index) for index in range(len(samples)))


def content_digest(sample: Sample) -> str:
    """SHA-256 of what the model would be fed: names, types, shapes and bytes."""
    digest = hashlib.sha256()
    for name in sorted(sample.inputs):
        array = np.ascontiguousarray(sample.inputs[name])
        digest.update(f"{name}:{array.dtype.str}:{array.shape};".encode())
        digest.update(array.view(np.uint8).reshape(-1).data)
    return digest.hexdigest()


def label_digest(sample: Sample) -> str:
    """SHA-256 of what is known about a sample beside its inputs: the label and the group."""
    digest = hashlib.sha256(sample.group.encode())
    for part in _told(sample.label):
        digest.update(part)
    return digest.hexdigest()


def _told(label: object) -> Iterator[bytes]:
    if isinstance(label, np.ndarray):
        yield f"{label.dtype.str}{label.shape}".encode()
        yield np.ascontiguousarray(label).tobytes()
    elif isinstance(label, Mapping):
        for key in label:
            yield repr(key).encode()
            yield from _told(label[key])
    elif isinstance(label, (list, tuple)):
        yield f"{type(label).__name__}{len(label)}".encode()
        for entry in label:
            yield from _told(entry)
    else:
        yield repr(label).encode()
