"""Tiny real models and data for the builder's tests; also named as entry points by them.

Four classes of noisy patterns, and a convolution net whose last layer is solved, not trained:
it answers with wide margins, so a sound INT8 candidate passes every time.
"""

import numpy as np
import torch
from torch import nn

from stoker_builder.data import MemoryDataSet, Sample

CLASSES = 4
SIDE = 16
SHAPE = (1, 3, SIDE, SIDE)
SAMPLES = 700
FEATURES = 128


class TinyNet(nn.Module):
    """Three convolutions and a linear layer; ``[1, 3, 16, 16]`` in, four scores out.

    Args:
        wild: join three features to the others that are a million times as large and weigh
            nothing: eight bits can not represent both.
    """

    def __init__(self, *, wild: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.wild = wild
        self.features = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1),
            nn.ReLU6(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.ReLU6(),
            nn.Conv2d(32, 32, 1),
            nn.ReLU6(),
            nn.AvgPool2d(4),
            nn.Flatten(),
        )
        self.head = nn.Linear(FEATURES + 3 if wild else FEATURES, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return four scores."""
        features = self.features(x)
        if self.wild:
            features = torch.cat([features, x.mean(dim=(2, 3)) * 1e6], dim=1)
        scores: torch.Tensor = self.head(features)
        return scores


class DividesByZero(TinyNet):
    """Answers NaN, but only where the input is zero throughout."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return four scores."""
        total = x.abs().sum(dim=(1, 2, 3)).unsqueeze(1)
        return super().forward(x) * (total / total)


class LoopsOverItsShape(TinyNet):
    """Answers as the plain net, with a loop that only an exporter can follow."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return four scores."""
        scores = super().forward(x)
        for _ in range(x.shape[0] - 1):
            scores = scores + 0
        return scores


def factory() -> nn.Module:
    """A net that answers all of ``dataset`` right."""
    return solved(TinyNet())


def one_wild_channel() -> nn.Module:
    """One output channel with huge weights: one scale for all of them loses the others."""
    net = TinyNet()
    convolution = net.features[2]
    assert isinstance(convolution, nn.Conv2d)
    with torch.no_grad():
        convolution.weight[0] *= 2000  # behind a ReLU6, its activations stay in range
    return solved(net)


def wild_activations() -> nn.Module:
    """A net that no eight-bit activations can represent."""
    return solved(TinyNet(wild=True))


def divides_by_zero() -> nn.Module:
    """A net that answers NaN to one sample of ``zero_among``."""
    return solved(DividesByZero())


def quantised_by_torchao() -> nn.Module:
    """The net of ``factory``, quantised by PyTorch's own tools."""
    from torchao.quantization.pt2e.quantize_pt2e import (  # noqa: PLC0415  slow to import
        convert_pt2e,
        prepare_pt2e,
    )
    from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import (  # noqa: PLC0415
        X86InductorQuantizer,
        get_default_x86_inductor_quantization_config,
    )

    samples = [torch.from_numpy(sample.inputs["x"]) for sample in _samples(20)]
    quantizer = X86InductorQuantizer()
    quantizer.set_global(get_default_x86_inductor_quantization_config())
    prepared = prepare_pt2e(torch.export.export(factory(), (samples[0],)).module(), quantizer)
    for sample in samples:
        prepared(sample)
    quantised: nn.Module = convert_pt2e(prepared)
    return quantised


def loops_over_its_shape() -> nn.Module:
    """A net that FX graph mode can not trace."""
    return solved(LoopsOverItsShape())


def feature_map() -> nn.Module:
    """A net that does not classify: its answer is a picture of 32 channels."""
    return solved(TinyNet()).features[:6]


def not_a_module() -> str:
    """A factory that gives something else."""
    return "not a module"


def raises() -> nn.Module:
    """A factory that fails."""
    msg = "no weights here"
    raise FileNotFoundError(msg)


def dataset(samples: str = str(SAMPLES)) -> MemoryDataSet:
    """Labelled patterns."""
    return MemoryDataSet(
        _samples(int(samples)), "patterns", preprocessing="noise on four patterns", note="made up"
    )


def unlabelled() -> MemoryDataSet:
    """The same patterns, and nobody knows which is which."""
    bare = [Sample(sample.inputs, None, sample.key) for sample in _samples(200)]
    return MemoryDataSet(bare, "patterns", labelled=False)


def empty() -> MemoryDataSet:
    """No samples at all."""
    return MemoryDataSet([], "nothing")


def label_out_of_range() -> MemoryDataSet:
    """One label that the model has no class for."""
    samples = _samples(60)
    samples[31] = Sample(samples[31].inputs, CLASSES, "the bad one")
    return MemoryDataSet(samples, "patterns")


def overlapping() -> MemoryDataSet:
    """Offers some samples for calibration and for certification."""
    samples = _samples(60)
    return MemoryDataSet(samples, "patterns", calibration=samples[50:])


def zero_among() -> MemoryDataSet:
    """One sample is all zero."""
    samples = _samples(60)
    samples[40] = Sample({"x": np.zeros(SHAPE, np.float32)}, 0, "the zero one")
    return MemoryDataSet(samples, "patterns")


def misnamed() -> MemoryDataSet:
    """The inputs have another name than the model's."""
    samples = [
        Sample({"y": sample.inputs["x"]}, sample.label, sample.key) for sample in _samples(60)
    ]
    return MemoryDataSet(samples, "patterns")


def not_a_data_set() -> list[int]:
    """Something else."""
    return [1, 2, 3]


def _samples(count: int) -> list[Sample]:
    rng = np.random.default_rng(7)
    patterns = rng.normal(size=(CLASSES, *SHAPE)).astype(np.float32)
    samples = []
    for index in range(count):
        label = index % CLASSES
        noise = rng.normal(size=SHAPE).astype(np.float32)
        samples.append(Sample({"x": patterns[label] + 0.5 * noise}, label, f"sample-{index}"))
    return samples


def solved(net: TinyNet) -> TinyNet:
    """Solve the last layer by least squares, on samples of its own."""
    samples = _samples(SAMPLES + 200)[SAMPLES:]
    inputs = torch.from_numpy(np.concatenate([sample.inputs["x"] for sample in samples]))
    labels = torch.tensor([sample.label for sample in samples])
    with torch.inference_mode():
        features = net.features(inputs)
    wanted = 10 * nn.functional.one_hot(labels, CLASSES).float()
    gram = features.T @ features + 0.1 * torch.eye(FEATURES)
    solution = torch.linalg.solve(gram, features.T @ wanted)
    with torch.no_grad():
        net.head.weight.zero_()
        net.head.weight[:, :FEATURES] = solution.T
        net.head.bias.zero_()
    return net.eval()
