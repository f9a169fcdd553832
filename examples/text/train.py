"""Make ``head.safetensors``. Users never need this.

    cd examples && python -m text.train

Fits a linear head on the embeddings of package descriptions that never certify; a minute or
two on one core.
"""

import logging
from typing import Final

import numpy as np
import torch
from safetensors.torch import save_file
from torch.nn import functional

from stoker_builder.data import Sample
from text.data import balanced, descriptions, samples
from text.model import CLASSES, HEAD_WEIGHTS, WIDTH, encoder

log = logging.getLogger(__name__)

PER_SECTION: Final = 500
BATCH: Final = 64
WEIGHT_DECAY: Final = 1e-4
STEPS: Final = 60


def main() -> None:
    """Fit, save, and say how good the head is on descriptions it never saw."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.manual_seed(7)
    known = descriptions()
    teach = samples(balanced((d for d in known if d.teaches), PER_SECTION))
    unseen = samples(balanced((d for d in known if not d.teaches), PER_SECTION))
    log.info("%d descriptions to learn from, %d unseen ones", len(teach), len(unseen))
    head = fit(embed(teach), labels_of(teach))
    save_file(head.state_dict(), HEAD_WEIGHTS)
    right = (head(embed(unseen)).argmax(1) == labels_of(unseen)).double().mean()
    log.info("right on unseen descriptions: %.1f %%; wrote %s", 100 * right, HEAD_WEIGHTS.name)


def embed(rows: list[Sample]) -> torch.Tensor:
    """Run the encoder as it is."""
    model = encoder()
    parts = []
    with torch.inference_mode():
        for start in range(0, len(rows), BATCH):
            batch = rows[start : start + BATCH]
            ids, mask = (
                torch.from_numpy(np.concatenate([row.inputs[name] for row in batch]))
                for name in ("ids", "mask")
            )
            parts.append(model(ids, mask))
    return torch.cat(parts)


def fit(embeddings: torch.Tensor, labels: torch.Tensor) -> torch.nn.Linear:
    """Logistic regression."""
    embeddings = embeddings.clone()  # an inference tensor takes no part in autograd
    head = torch.nn.Linear(WIDTH, CLASSES)
    optimiser = torch.optim.LBFGS(head.parameters(), max_iter=STEPS)

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss = functional.cross_entropy(head(embeddings), labels)
        loss = loss + WEIGHT_DECAY * head.weight.square().sum()
        torch.autograd.backward(loss)
        return loss

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    return head


def labels_of(rows: list[Sample]) -> torch.Tensor:
    """The right answers."""
    return torch.tensor([row.label for row in rows])


if __name__ == "__main__":
    main()
