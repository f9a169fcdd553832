"""A small convolution net for handwritten digits: 70 thousand weights."""

import torch
from torch import nn


class DigitsNet(nn.Module):
    """Five 3x3 convolutions; ``[1, 1, 28, 28]`` in, ten logits out."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_block(1, 16, stride=1),
            *_block(16, 32, stride=2),
            *_block(32, 32, stride=1),
            *_block(32, 64, stride=2),
            *_block(64, 64, stride=1),
        )
        self.classifier = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return ten logits for each image."""
        logits: torch.Tensor = self.classifier(self.features(x).mean(dim=(2, 3)))
        return logits


def factory() -> nn.Module:
    """Return the network without its weights, which are in ``weights.safetensors``."""
    return DigitsNet()


def _block(channels_in: int, channels_out: int, *, stride: int) -> list[nn.Module]:
    return [
        nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
    ]
