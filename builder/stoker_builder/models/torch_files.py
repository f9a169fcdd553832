"""Loading the formats of PyTorch that run code when they are loaded. Only in a bounded child."""

import os
import sys
import zipfile
from pathlib import Path

import torch

from stoker_builder.errors import BuildCode, BuildError


def load_module(path: Path) -> torch.nn.Module:
    """Load a ``torch.export`` program, a TorchScript archive or a pickled module.

    Which one it is, is told by what is in it: all of them are called ``.pt`` by somebody.

    Raises:
        BuildError: ``MODEL_FORMAT``, when it holds something else. Whatever loading raises.
    """
    sys.path.append(os.getcwd())  # noqa: PTH109  where the classes of a pickled module may be
    names = set()
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = {name.partition("/")[2] or name for name in archive.namelist()}
    if names & {"archive_format", "serialized_exported_program.json", "models/model.json"}:
        return torch.export.load(path).module()
    if "constants.pkl" in names:
        return torch.jit.load(path, map_location="cpu").eval()  # type: ignore[no-untyped-call,no-any-return]
    module = torch.load(path, map_location="cpu", weights_only=False)
    if not isinstance(module, torch.nn.Module):
        detail = f"{path.name} holds a {type(module).__name__}, not a module"
        hint = "a state dict goes into --weights, beside the factory that makes its model"
        raise BuildError(BuildCode.MODEL_FORMAT, detail, hint)
    return module.eval()
