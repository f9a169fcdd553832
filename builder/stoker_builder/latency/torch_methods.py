"""What each of PyTorch's routes does with a module before it is timed. Imports torch.

PyTorch's own quantisation has two homes: ``torch.ao`` (deprecated, still there) has dynamic
and FX graph mode, and torchao has PT2E, whose graph is only fast once it is compiled.
"""

import importlib.util
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import torch

from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.latency.torch_routes import Method
from stoker_builder.models.torch_module import listed

Tensors = tuple[torch.Tensor, ...]
Model = Callable[..., Any]


def _eager(module: torch.nn.Module, example: Tensors, calibration: Iterator[Tensors]) -> Model:
    del example, calibration
    return module


def _compile(module: torch.nn.Module, example: Tensors, calibration: Iterator[Tensors]) -> Model:
    del example, calibration
    return _frozen(_channels_last(module))


def _compile_bf16(
    module: torch.nn.Module, example: Tensors, calibration: Iterator[Tensors]
) -> Model:
    del example, calibration
    return _frozen(_channels_last(_InBfloat16(module)))


def _dynamic_int8(
    module: torch.nn.Module, example: Tensors, calibration: Iterator[Tensors]
) -> Model:
    del example, calibration
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantised: Model = torch.ao.quantization.quantize_dynamic(  # type: ignore[no-untyped-call]
            module, {torch.nn.Linear}, dtype=torch.qint8
        )
    return quantised


def _static_int8_fx(
    module: torch.nn.Module, example: Tensors, calibration: Iterator[Tensors]
) -> Model:
    from torch.ao.quantization import get_default_qconfig_mapping  # noqa: PLC0415  slow, and old
    from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx  # noqa: PLC0415

    engines = torch.backends.quantized.supported_engines
    engine = next(name for name in ("onednn", "qnnpack", "fbgemm") if name in engines)
    torch.backends.quantized.engine = engine
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        prepared = prepare_fx(module, get_default_qconfig_mapping(engine), example)
        for inputs in calibration:
            prepared(*inputs)
        quantised: Model = convert_fx(prepared)
    return quantised


def _static_int8(
    module: torch.nn.Module, example: Tensors, calibration: Iterator[Tensors]
) -> Model:
    if importlib.util.find_spec("torchao") is None:
        detail = "PyTorch's static INT8 lives in torchao, which is not installed"
        raise BuildError(BuildCode.MEASURE, detail, "pip install torchao")
    from torchao.quantization.pt2e.quantize_pt2e import (  # noqa: PLC0415  only this route needs it
        convert_pt2e,
        prepare_pt2e,
    )
    from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import (  # noqa: PLC0415
        X86InductorQuantizer,
        get_default_x86_inductor_quantization_config,
    )

    quantizer = X86InductorQuantizer()
    quantizer.set_global(get_default_x86_inductor_quantization_config())
    prepared = prepare_pt2e(torch.export.export(module, example).module(), quantizer)
    for inputs in calibration:
        prepared(*inputs)
    return _frozen(convert_pt2e(prepared))


METHODS: Final[Mapping[Method, Callable[[torch.nn.Module, Tensors, Iterator[Tensors]], Model]]] = {
    "eager": _eager,
    "compile": _compile,
    "compile-bf16": _compile_bf16,
    "dynamic-int8": _dynamic_int8,
    "static-int8-fx": _static_int8_fx,
    "static-int8": _static_int8,
}


class _InBfloat16(torch.nn.Module):
    """A module in BF16 that takes and gives what the original does."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.inner = module.to(torch.bfloat16)

    def forward(self, *inputs: torch.Tensor) -> Tensors:
        """Convert, run, convert back."""
        halved = (x.bfloat16() if x.is_floating_point() else x for x in inputs)
        outputs = listed(self.inner(*halved))
        return tuple(y.float() if y.is_floating_point() else y for y in outputs)


def _channels_last(module: torch.nn.Module) -> torch.nn.Module:
    # the layout that oneDNN's convolutions want; weights that are no images keep theirs
    arranged: torch.nn.Module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return arranged


def _frozen(module: torch.nn.Module) -> Model:
    import torch._inductor.config as inductor  # noqa: PLC0415  slow to import

    inductor.freezing = True
    compiled: Model = torch.compile(module)
    return compiled
