"""Making the files that are compared: the release, and what the peers' own tools make.

Everything is kept in a folder and made once. Nothing here is timed, so a busy machine does not
matter; but ``stoker build`` chooses by what it measures, so a quiet one is better.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from benchmarks.builder.workloads import Workload
from numpy.typing import NDArray

from stoker_builder.data import load_data
from stoker_builder.models.source import ingest
from stoker_builder.split import split
from stoker_contract.manifest import Artifact, Manifest

Arrays = Mapping[str, NDArray[np.generic]]

_FAILURES: Final = "failures.json"
_SAMPLES: Final = "samples.npz"
_RELEASE: Final = "release-"
_REASON_LETTERS: Final = 200


@dataclass(frozen=True, slots=True)
class Prepared:
    """A workload's folder."""

    folder: Path

    def release(self, threads: int) -> Path:
        """The release folder for so many threads: what is fastest may differ."""
        return self.folder / f"{_RELEASE}{threads}"

    @property
    def releases(self) -> dict[int, Path]:
        """The releases that were built, by their number of threads."""
        found = {int(p.parent.name.removeprefix(_RELEASE)): p.parent for p in self._manifests()}
        return dict(sorted(found.items()))

    def _manifests(self) -> Iterator[Path]:
        return self.folder.glob(f"{_RELEASE}*/manifest.json")

    def artifacts(self, threads: int) -> dict[str, Artifact]:
        """What devices take first, by target, of the release for so many threads if it is there."""
        try:
            manifest = Manifest.parse((self.release(threads) / "manifest.json").read_bytes())
        except FileNotFoundError:
            return {}
        found: dict[str, Artifact] = {}
        for artifact in manifest.artifacts:
            found.setdefault(artifact.target.name, artifact)
        return found

    @property
    def failures(self) -> dict[str, str]:
        """Why a file could not be made, by its name."""
        try:
            found: dict[str, str] = json.loads((self.folder / _FAILURES).read_text("utf-8"))
        except FileNotFoundError:
            return {}
        return found

    def example(self) -> Arrays:
        """The sample that is timed."""
        return next(self._samples())

    def calibration(self) -> Iterator[Arrays]:
        """The samples that calibrate, the same for everybody."""
        samples = self._samples()
        next(samples)
        return samples

    def _samples(self) -> Iterator[Arrays]:
        with np.load(self.folder / _SAMPLES) as file:
            count = int(file["count"])
            names = [name.partition(":")[2] for name in file.files if name.startswith("0:")]
            for index in range(count):
                yield {name: file[f"{index}:{name}"] for name in names}


def prepare(
    workload: Workload,
    folder: Path,
    *,
    threads: Iterable[int],
    targets: Collection[str],
    options: list[str],
) -> Prepared:
    """Make what is missing; of releases, one for each number of threads and for all targets.

    Raises:
        BuildError: the model or the data can not be read.
        subprocess.CalledProcessError: ``stoker build`` failed; it has said why.
    """
    folder.mkdir(parents=True, exist_ok=True)
    prepared = Prepared(folder)
    if not (folder / _SAMPLES).is_file():
        data = load_data(workload.data, workload.data_arguments)
        parts = split(data)
        example = parts.certification[0].inputs
        ingest(workload.model, None, example, folder)
        calibration = [parts.calibration[index].inputs for index in range(len(parts.calibration))]
        _save_samples([example, *calibration], folder / _SAMPLES)
    wanted = ["--targets", ",".join(targets)]
    for count in threads:
        if not set(targets) <= prepared.artifacts(count).keys():
            shutil.rmtree(prepared.release(count), ignore_errors=True)
            cores = ["--cores", str(count)] if count > 1 else []
            _build(workload, prepared.release(count), [*wanted, *cores, *options])
    makers: dict[str, Callable[[Path, Prepared, Workload], None]] = {
        "ort-static.onnx": _ort_static,
        "ort-dynamic.onnx": _ort_dynamic,
        "nncf.xml": _nncf,
    }
    for name, make in makers.items():
        if not (folder / name).is_file() and name not in prepared.failures:
            _attempt(name, make, prepared, workload)
    return prepared


def _attempt(
    name: str,
    make: Callable[[Path, Prepared, Workload], None],
    prepared: Prepared,
    workload: Workload,
) -> None:
    """What a peer's tool can not do is a row that says so, not the end of the comparison."""
    try:
        make(prepared.folder / name, prepared, workload)
    except Exception as error:  # noqa: BLE001 - other people's tools raise anything
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:_REASON_LETTERS]
        failures = {**prepared.failures, name: reason}
        (prepared.folder / _FAILURES).write_text(json.dumps(failures), encoding="utf-8")


def _build(workload: Workload, release: Path, options: list[str]) -> None:
    """Let ``stoker build`` make the release."""
    command = [
        str(Path(sys.executable).with_name("stoker")),
        *("build", "--model", workload.model, "--data", workload.data),
        *(f"--data-arg={name}={value}" for name, value in workload.data_arguments.items()),
        *("--name", workload.name, "--version", "1.0.0", "--counter", "1"),
        *("--output", str(release)),
        *options,
    ]
    subprocess.run(command, check=True)  # noqa: S603 - our own command


def _ort_static(path: Path, prepared: Prepared, workload: Workload) -> None:
    """``quantize_static`` with its defaults: QDQ, signed by signed, one scale per tensor."""
    from onnxruntime.quantization import quantize_static  # noqa: PLC0415  slow to import

    del workload
    quantize_static(_preprocessed(prepared), str(path), _reader(prepared.calibration()))


def _ort_dynamic(path: Path, prepared: Prepared, workload: Workload) -> None:
    from onnxruntime.quantization import quantize_dynamic  # noqa: PLC0415  slow to import

    del workload
    quantize_dynamic(_preprocessed(prepared), str(path))


def _preprocessed(prepared: Prepared) -> str:
    """The graph after the tool's own pre-processing, which its documentation asks for."""
    from onnxruntime.quantization.shape_inference import (  # noqa: PLC0415  slow to import
        quant_pre_process,
    )

    ready = prepared.folder / "ort-prepared.onnx"
    if not ready.is_file():
        source = str(prepared.folder / "source.onnx")
        quant_pre_process(source, str(ready), skip_symbolic_shape=True)
    return str(ready)


def _nncf(path: Path, prepared: Prepared, workload: Workload) -> None:
    """NNCF's default preset; transformers are named as such, as its documentation asks."""
    import nncf  # noqa: PLC0415  slow to import, and only here
    import openvino as ov  # noqa: PLC0415

    model = ov.Core().read_model(str(prepared.folder / "source.onnx"))
    samples = [dict(inputs) for inputs in prepared.calibration()]
    quantised = nncf.quantize(
        model,
        nncf.Dataset(samples),
        subset_size=len(samples),
        model_type=nncf.ModelType.TRANSFORMER if workload.is_transformer else None,
    )
    ov.save_model(quantised, str(path), compress_to_fp16=False)


def _reader(samples: Iterator[Arrays]) -> Any:  # noqa: ANN401  onnxruntime has no types
    from onnxruntime.quantization import CalibrationDataReader  # noqa: PLC0415  slow to import

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # as above
        def get_next(self) -> dict[str, NDArray[np.generic]] | None:
            inputs = next(samples, None)
            return dict(inputs) if inputs is not None else None

    return Reader()


def _save_samples(samples: Iterable[Arrays], path: Path) -> None:
    arrays: dict[str, Any] = {}
    count = 0
    for index, inputs in enumerate(samples):
        arrays.update({f"{index}:{name}": array for name, array in inputs.items()})
        count = index + 1
    unfinished = path.with_name(f"new-{path.name}")
    np.savez(unfinished, count=np.array(count), **arrays)
    unfinished.rename(path)
