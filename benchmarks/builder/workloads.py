"""What is compared: four models, each as PyTorch and as what ``stoker build`` is given."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final

_ROOT: Final = Path(__file__).parents[2]
_EXAMPLES: Final = _ROOT / "examples"
_HERE: Final = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Workload:
    """One model and its data.

    Attributes:
        factory: the module, for PyTorch's own routes.
        data: the data set's entry point; it certifies stoker's candidates and the peers alike.
        data_arguments: for the entry point.
        published_as_onnx: stoker is given the ONNX file, not the module.
        is_transformer: what NNCF is told, and whether dynamic quantisation is worth a row.
    """

    name: str
    title: str
    factory: str
    data: str
    data_arguments: Mapping[str, str] = field(default_factory=dict)
    published_as_onnx: bool = False
    is_transformer: bool = False

    @property
    def model(self) -> str:
        """What is given to ``stoker build --model``."""
        if not self.published_as_onnx:
            return self.factory
        from benchmarks.builder.ppocr import source  # noqa: PLC0415  imports torch

        return str(source())


WORKLOADS: Final[Mapping[str, Workload]] = MappingProxyType(
    {
        workload.name: workload
        for workload in (
            Workload(
                "efficientnet-lite0",
                "EfficientNet-Lite0, 224x224",
                f"{_EXAMPLES}/photos/model.py:factory",
                f"{_EXAMPLES}/photos/data.py:dataset",
            ),
            Workload(
                "resnet50",
                "ResNet-50, 224x224, random weights",
                f"{_HERE}/resnet50.py:factory",
                f"{_HERE}/resnet50.py:dataset",
            ),
            Workload(
                "minilm",
                "MiniLM-L6, 64 tokens",
                f"{_EXAMPLES}/text/model.py:factory",
                f"{_EXAMPLES}/text/data.py:dataset",
                is_transformer=True,
            ),
            Workload(
                "ppocr-det",
                "PP-OCRv4 text detector, 480x480",
                f"{_HERE}/ppocr.py:factory",
                f"{_EXAMPLES}/detector/pages.py:dataset",
                # the example's 340 are too few to tell a loss of one point from none
                data_arguments={"pages": "1100"},
                published_as_onnx=True,
            ),
        )
    }
)
