"""A small network of depthwise separable convolutions that knows ten spoken commands."""

from typing import Final

import torch
from torch import nn

CLASSES: Final = 10
WIDTH: Final = 64
BLOCKS: Final = 4


class CommandNet(nn.Module):
    """``[1, 1, 40, frames]`` log-mel bands in, ten logits out. It keeps no state."""

    def __init__(self) -> None:
        super().__init__()
        first = nn.Conv2d(1, WIDTH, (10, 4), stride=2, padding=(4, 1), bias=False)
        blocks = [layer for _ in range(BLOCKS) for layer in _block(WIDTH)]
        self.features = nn.Sequential(first, nn.BatchNorm2d(WIDTH), nn.ReLU(), *blocks)
        self.classifier = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return ten logits for each clip."""
        logits: torch.Tensor = self.classifier(self.features(x).mean(dim=(2, 3)))
        return logits


def factory() -> nn.Module:
    """Return the network without its weights, which are in ``weights.safetensors``."""
    return CommandNet()


def _block(width: int) -> list[nn.Module]:
    return [
        nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, width, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
    ]
