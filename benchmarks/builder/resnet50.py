"""ResNet-50 as torchvision arranges it, with random weights: for its speed only.

There are no published weights in the package registries. Random ones are as fast; batch
normalisation is set from noise, so that nothing overflows or dies out. What a candidate does
to the numbers is judged by how far its outputs are from those of FP32.
"""

import importlib.util
import sys
from pathlib import Path
from typing import Final

import torch
from torch import nn

from stoker_builder.data import MemoryDataSet
from stoker_builder.metrics import OutputError

CLASSES: Final = 1000
EXPANSION: Final = 4
STAGES: Final = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))  # width, blocks, stride
CROPS: Final = Path(__file__).parents[2] / "examples" / "photos" / "data.py"


class Bottleneck(nn.Module):
    """Down to a narrow 3x3 convolution and up again, beside a shortcut."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        wide = width * EXPANSION
        self.narrow = nn.Sequential(
            *_convolution(channels, width, 1),
            nn.ReLU(),
            *_convolution(width, width, 3, stride),
            nn.ReLU(),
            *_convolution(width, wide, 1),
        )
        fits = stride == 1 and channels == wide
        self.shortcut: nn.Module = (
            nn.Identity() if fits else nn.Sequential(*_convolution(channels, wide, 1, stride))
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the sum of both ways."""
        return torch.relu(self.narrow(x) + self.shortcut(x))


def factory() -> nn.Module:
    """Return the network; ``[1, 3, 224, 224]`` in, 1,000 logits out."""
    with torch.random.fork_rng():
        torch.manual_seed(50)
        layers: list[nn.Module] = [
            *_convolution(3, 64, 7, 2),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2, padding=1),
        ]
        channels = 64
        for width, blocks, stride in STAGES:
            for block in range(blocks):
                layers.append(Bottleneck(channels, width, stride if block == 0 else 1))
                channels = width * EXPANSION
        pooled = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, CLASSES)]
        model = nn.Sequential(*layers, *pooled)
        with torch.no_grad():
            model.train()(torch.randn(4, 3, 224, 224))  # sets the means and variances
    return model.eval()


def dataset() -> MemoryDataSet:
    """Return crops of photographs; the answers of FP32 stand for right ones."""
    spec = importlib.util.spec_from_file_location("crops_of_photos", CROPS)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(CROPS)
    photos = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = photos  # its dataclasses look themselves up
    spec.loader.exec_module(photos)
    crops = photos.crops()
    return MemoryDataSet(
        samples=crops.samples,
        name="crops",
        preprocessing=crops.preprocessing,
        labelled=False,
        note=f"outputs beside those of FP32 on {len(crops.samples)} crops; random weights",
        calibration=crops.calibration,
        metric=OutputError(),
    )


def _convolution(
    channels_in: int, channels_out: int, size: int, stride: int = 1
) -> tuple[nn.Module, nn.Module]:
    convolution = nn.Conv2d(channels_in, channels_out, size, stride, padding=size // 2, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    normalisation = nn.BatchNorm2d(channels_out, momentum=None)
    return convolution, normalisation
