"""Make ``weights.safetensors``. Users never need this.

    cd examples && python -m audio.train

Has ``espeak-ng`` speak a few thousand clips with the voices that never certify, and learns
from them in a few minutes on one core.
"""

import logging
from pathlib import Path
from typing import Final

import numpy as np
import torch
from safetensors.torch import save_file
from torch.nn import functional

from audio.data import HELD_OUT, TAUGHT, WORDS, clips, drawn, features, heard, samples
from audio.model import factory

log = logging.getLogger(__name__)

WEIGHTS: Final = Path(__file__).with_name("weights.safetensors")
CLIPS: Final = 3000
TAKES: Final = 2  # of each, in other noise
EPOCHS: Final = 12
BATCH: Final = 64


def main() -> None:
    """Train, save, and say how good it is with voices it never heard."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.manual_seed(3)
    torch.set_num_threads(1)
    of = drawn(clips(TAUGHT.split()), CLIPS)
    takes = [features(sound) for take in range(1, TAKES + 1) for sound in heard(of, take)]
    sounds = torch.from_numpy(np.concatenate(takes))
    words = torch.tensor([WORDS.index(clip.word) for clip in of]).repeat(TAKES)
    log.info("%d clips to learn from", len(words))
    model = train(sounds, words)
    save_file(model.state_dict(), WEIGHTS)

    unseen = samples(drawn(clips(HELD_OUT.split()), 1000))
    with torch.inference_mode():
        answers = model(torch.from_numpy(np.concatenate([s.inputs["x"] for s in unseen])))
    right = np.mean([a == s.label for a, s in zip(answers.argmax(1).tolist(), unseen, strict=True)])
    log.info("right with unheard voices: %.1f %%; wrote %s", 100 * right, WEIGHTS.name)


def train(sounds: torch.Tensor, words: torch.Tensor) -> torch.nn.Module:
    """Train on shifted clips with one learning-rate cycle."""
    model = factory()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-2)
    steps = EPOCHS * -(-len(sounds) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=8e-3, total_steps=steps)
    model.train()
    for epoch in range(EPOCHS):
        total = 0.0
        for batch in torch.split(torch.randperm(len(sounds)), BATCH):
            shift = int(torch.randint(-8, 9, ()))
            logits = model(sounds[batch].roll(shift, dims=-1))
            loss = functional.cross_entropy(logits, words[batch], label_smoothing=0.05)
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
            schedule.step()
            total += float(loss.detach()) * len(batch)
        log.info("epoch %d of %d: loss %.4f", epoch + 1, EPOCHS, total / len(sounds))
    return model.eval()


if __name__ == "__main__":
    main()
