"""Making a PyTorch module from a factory and weights, and running it as it is."""

from pathlib import Path

import torch

from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.models.entrypoints import TorchModel, call, load_entry, quiet


def make_module(model: TorchModel) -> torch.nn.Module:
    """Make the module, with its weights, ready for inference.

    Raises:
        BuildError: ``FACTORY`` or ``WEIGHTS``.
    """
    factory = load_entry(model.factory, BuildCode.FACTORY)
    module = call(factory, model.factory, BuildCode.FACTORY)
    if not isinstance(module, torch.nn.Module):
        detail = f"{model.factory} returned {type(module).__name__}, expected a torch.nn.Module"
        raise BuildError(BuildCode.FACTORY, detail, "return the module itself")
    if model.weights is not None:
        _load_weights(module, model.weights)
    return module.eval()


def outputs_of(module: torch.nn.Module, arguments: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    """Run the module as it is.

    Raises:
        BuildError: ``FACTORY``, when the module does not take the sample, or gives
            something else than tensors.
    """
    try:
        with torch.inference_mode(), quiet():
            answer = module(*arguments)
    except Exception as error:
        detail = f"the module raised {type(error).__name__} on the first sample: {error}"
        hint = "samples' inputs are passed in their own order; check names, types and shapes"
        raise BuildError(BuildCode.FACTORY, detail[:600], hint) from error
    return listed(answer)


def listed(answer: object) -> list[torch.Tensor]:
    """The tensors that a module answered with.

    Raises:
        BuildError: ``FACTORY``, when that is anything else.
    """
    given = list(answer) if isinstance(answer, tuple | list) else [answer]
    outputs = [output for output in given if isinstance(output, torch.Tensor)]
    if not outputs or len(outputs) < len(given):
        detail = f"the module answers with {type(answer).__name__}"
        raise BuildError(BuildCode.FACTORY, detail, "wrap it to return a tensor or a tuple of them")
    return outputs


def output_names(count: int) -> list[str]:
    """What the outputs of a module are called once it is exported."""
    return ["output"] if count == 1 else [f"output_{index}" for index in range(count)]


def _load_weights(module: torch.nn.Module, path: Path) -> None:
    if path.suffix != ".safetensors":
        detail = f"{path.name}: weights are .safetensors, or a state dict in a .pt or .pth file"
        hint = "safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')"
        raise BuildError(BuildCode.UNSAFE_FORMAT, detail, hint)
    from safetensors import SafetensorError  # noqa: PLC0415  only for weights of their own
    from safetensors.torch import load_file  # noqa: PLC0415

    try:
        module.load_state_dict(load_file(path))
    except (OSError, SafetensorError) as error:
        hint = "check the path of --weights"
        raise BuildError(BuildCode.WEIGHTS, f"{path}: {error}", hint) from None
    except RuntimeError as error:
        detail = f"{path.name} does not fit the model: {' '.join(str(error).split())[:300]}"
        raise BuildError(BuildCode.WEIGHTS, detail, "use the factory of these weights") from None
