"""Real models that lose their answers to a usual way of quantising: each is refused, visibly.

Published weights, few samples: the losses are so large that few show them.
"""

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest

from stoker_builder.accuracy.certify import Judged, judge
from stoker_builder.accuracy.evaluate import Answering, answer_all, metric_of
from stoker_builder.accuracy.risk import Risk
from stoker_builder.candidates.audit import Audit, audit
from stoker_builder.candidates.candidate import REFERENCE
from stoker_builder.candidates.quantise import Quantiser
from stoker_builder.candidates.recipes import RECIPES
from stoker_builder.data import DataSet, MemoryDataSet, calibration_of, load_data
from stoker_builder.errors import BuildCode
from stoker_builder.kernels.engines import EngineRunner, runner_at
from stoker_builder.kernels.isa import host_isa
from stoker_builder.kernels.places import AVX2_CAP, Place, Way, native
from stoker_builder.models.entrypoints import load_entry
from stoker_builder.models.source import SourceModel, ingest
from stoker_builder.rows import Mark
from stoker_builder.split import Part
from stoker_contract.manifest import SessionOptions
from stoker_contract.target import Runtime
from support.tiny_build import request_for

EXAMPLES = Path(__file__).parents[2] / "examples"
CALIBRATION = 24
AVX2 = Place(Way.CAPPED, "capped at AVX2", {"ONEDNN_MAX_CPU_ISA": AVX2_CAP})

needs_vnni = pytest.mark.skipif(
    not {"avx512_vnni", "avx_vnni"} & host_isa(), reason="this processor has no VNNI"
)
needs_debian = pytest.mark.skipif(
    not Path("/var/lib/apt/lists").is_dir(), reason="package descriptions are Debian's"
)


@dataclass(frozen=True, slots=True)
class Subject:
    """A model with its data, and what recipes make of it."""

    source: SourceModel
    data: DataSet
    judging: Part
    files: Mapping[str, Path]
    scratch: Path

    def audited(self, recipe: str) -> Audit:
        """What ONNX Runtime fuses of a file."""
        return audit(self.files[recipe], self.data.samples[0].inputs, self.scratch)

    def judged(
        self, recipes: Iterable[str], session: SessionOptions, place: Place
    ) -> dict[str, Judged]:
        """What the gate says of the files, run in a place."""
        metric = metric_of(self.data, self.source.io)
        example = self.data.samples[0].inputs
        with ExitStack() as stack:
            files: dict[str, Answering] = {
                "fp32": EngineRunner(self.source.path, REFERENCE.session),
                **{n: runner_at(place, self.files[n], session, example, stack) for n in recipes},
            }
            answers = answer_all(files, self.judging, metric)
        return {
            name: judge(
                answers["fp32"],
                answers[name],
                metric,
                request_for(self.scratch),
                risk=Risk(0.05, 1),
                certified_on=place.name,
            )
            for name in recipes
        }


def subject(
    model: str, data: DataSet, recipes: Iterable[str], samples: int, folder: Path
) -> Subject:
    """Take a model in and follow some recipes; so many samples judge, spread over all."""
    calibration = calibration_of(data)
    assert calibration is not None
    source = ingest(model, None, data.samples[0].inputs, folder)
    watched = Part(calibration, tuple(range(min(CALIBRATION, len(calibration)))), ())
    quantiser = Quantiser(source.path, watched, folder)
    step = len(data.samples) // samples
    judging = Part(data.samples, tuple(range(0, step * samples, step)), ())
    files = {name: quantiser.make(RECIPES[name]) for name in recipes}
    return Subject(source, data, judging, files, folder)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """EfficientNet-Lite0; its answers to crops are compared with those of FP32."""
    crops = load_entry(f"{EXAMPLES}/photos/data.py:crops", BuildCode.DATA_ENTRY)()
    assert isinstance(crops, MemoryDataSet)
    recipes = ("int8-perchannel", "int8-pertensor", "int8-s8s8", "int8-pairs")
    folder = tmp_path_factory.mktemp("photos")
    return subject(f"{EXAMPLES}/photos/model.py:factory", crops, recipes, 150, folder)


@needs_vnni
def test_photos_are_refused_per_tensor(photos: Subject) -> None:
    """One scale for all channels costs points; one for each costs next to nothing."""
    recipes = ("int8-perchannel", "int8-pertensor")
    seen = photos.judged(recipes, SessionOptions(), native())

    assert seen["int8-pertensor"].mark is Mark.FAIL
    assert "over the budget" in seen["int8-pertensor"].why
    assert seen["int8-perchannel"].mark is not Mark.FAIL
    assert seen["int8-perchannel"].accuracy.loss < seen["int8-pertensor"].accuracy.loss / 2


@needs_vnni
@pytest.mark.skipif(find_spec("openvino") is None, reason="ONNX Runtime can not be capped")
def test_what_vnni_needs_is_refused_without_it(photos: Subject) -> None:
    """The same file saturates with AVX2 kernels; the one without large pairs does not."""
    recipes = ("int8-perchannel", "int8-pairs")
    seen = photos.judged(recipes, SessionOptions(runtime=Runtime.OPENVINO), AVX2)

    assert seen["int8-perchannel"].mark is Mark.FAIL
    assert seen["int8-pairs"].mark is not Mark.FAIL
    assert seen["int8-pairs"].accuracy.loss < seen["int8-perchannel"].accuracy.loss / 2


@needs_vnni
def test_signed_activations_are_flagged(photos: Subject) -> None:
    """ONNX Runtime's default leaves convolutions in float on x86, and the audit names them."""
    clean, flagged = photos.audited("int8-perchannel"), photos.audited("int8-s8s8")

    assert clean.passed
    assert clean.share > 0.99
    assert not flagged.passed
    assert "Conv" in flagged.fusion().float_ops[0]


@needs_debian
def test_a_transformer_is_refused_with_everything_quantised(tmp_path: Path) -> None:
    """MiniLM loses nearly half of its answers; with its products alone it keeps them."""
    data = load_data(f"{EXAMPLES}/text/data.py:dataset", {"per_section": "10"})
    recipes = ("int8-perchannel", "int8-dynamic")
    text = subject(f"{EXAMPLES}/text/model.py:factory", data, recipes, 120, tmp_path)
    seen = text.judged(recipes, SessionOptions(), native())

    assert seen["int8-perchannel"].mark is Mark.FAIL
    assert seen["int8-perchannel"].accuracy.loss > 0.2
    assert seen["int8-dynamic"].mark is not Mark.FAIL
    assert abs(seen["int8-dynamic"].accuracy.loss) < 0.05


def test_a_recogniser_is_refused_with_unbounded_activations(tmp_path: Path) -> None:
    """Extremes as ranges leave nothing of PP-OCR's reader; products scaled at run time do."""
    model = load_entry(f"{EXAMPLES}/detector/model.py:packaged", BuildCode.FACTORY)("recogniser")
    arguments = {"dictionary": str(model), "lines": "120"}
    data = load_data(f"{EXAMPLES}/detector/lines.py:dataset", arguments)
    recipes = ("int8-perchannel", "int8-dynamic")
    lines = subject(str(model), data, recipes, 60, tmp_path)
    seen = lines.judged(recipes, SessionOptions(), native())

    assert seen["int8-perchannel"].mark is Mark.FAIL
    assert seen["int8-perchannel"].accuracy.loss > 0.4
    assert seen["int8-dynamic"].mark is not Mark.FAIL
    assert abs(seen["int8-dynamic"].accuracy.loss) < 0.05
