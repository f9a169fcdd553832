"""From ONNX bytes to a configured network: the one code path for every TensorRT.

Names that came or went between releases are looked up; nothing asks for a version number.
TensorRT from 10 on and TensorRT-RTX are strongly typed: precision is in the graph. TensorRT 8.6
takes the graph's types as wishes and needs flags to grant them.
"""

from collections.abc import Iterator
from typing import Final

from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.tensorrt.settings import CompileSettings
from stoker_contract.manifest import EngineIO, TensorSpec
from stoker_contract.target import Runtime
from stoker_engine.tensorrt_backend import DTYPES
from stoker_engine.tensorrt_library import Binding, Library, Messages

_QUANTISING: Final = frozenset({"QUANTIZE", "DEQUANTIZE"})


def create_network(library: Library, builder: Binding, settings: CompileSettings) -> Binding:
    """An empty network, strongly typed wherever that exists.

    A DLA takes no strongly typed network; there its half precision is a flag, while flags exist.
    """
    flags = library.NetworkDefinitionCreationFlag
    strongly = getattr(flags, "STRONGLY_TYPED", None)
    explicit = getattr(flags, "EXPLICIT_BATCH", None)
    if settings.dla_core is not None and hasattr(library.BuilderFlag, "FP16"):
        strongly = None
    bits = sum(1 << int(flag) for flag in (strongly, explicit) if flag is not None)
    return builder.create_network(bits)


def parse(
    library: Library, network: Binding, logger: Binding, data: bytes, messages: Messages
) -> None:
    """Read an ONNX graph into a network.

    Raises:
        BuildError: ``TENSORRT_GRAPH``, an operator or type that TensorRT does not take.
    """
    parser = library.OnnxParser(network, logger)
    if parser.parse(data) and network.num_outputs:  # it takes some foreign bytes for an empty graph
        return
    said = [parser.get_error(index).desc() for index in range(parser.num_errors)]
    detail = "; ".join(said or messages.take()) or "it finds no graph in it"
    hint = "ship this target as ONNX, or export the model without what is named"
    raise BuildError(BuildCode.TENSORRT_GRAPH, f"TensorRT does not take it: {detail[:600]}", hint)


def configure(
    library: Library, builder: Binding, network: Binding, settings: CompileSettings
) -> Binding:
    """The builder's configuration for a parsed network.

    Raises:
        BuildError: ``COMPILE``, this library can not do what the settings ask for.
    """
    config = builder.create_builder_config()
    config.profiling_verbosity = library.ProfilingVerbosity.DETAILED
    if settings.workspace_bytes is not None:
        config.set_memory_pool_limit(library.MemoryPoolType.WORKSPACE, settings.workspace_bytes)
    if settings.optimisation_level is not None:
        config.builder_optimization_level = settings.optimisation_level
    _choose_gpu(library, config, settings)
    _grant_precisions(library, config, network, settings)
    _place_on_dla(library, builder, config, settings)
    _add_profile(builder, config, network, settings)
    return config


def io_of(network: Binding) -> EngineIO:
    """The tensors of a network.

    Raises:
        BuildError: ``UNSUPPORTED_OP``, one that can not cross the serving protocol.
    """
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    outputs = [network.get_output(index) for index in range(network.num_outputs)]
    return EngineIO(
        inputs=tuple(_spec(tensor) for tensor in inputs),
        outputs=tuple(_spec(tensor) for tensor in outputs),
    )


def _spec(tensor: Binding) -> TensorSpec:
    dtype = DTYPES.get(tensor.dtype.name)
    if dtype is None:
        detail = f"tensor {tensor.name} is a {tensor.dtype} in TensorRT"
        hint = "only plain numeric tensors can cross the serving protocol"
        raise BuildError(BuildCode.UNSUPPORTED_OP, detail, hint)
    return TensorSpec(name=tensor.name, dtype=dtype, shape=tuple(tensor.shape))


def _choose_gpu(library: Library, config: Binding, settings: CompileSettings) -> None:
    wanted = settings.compute_capability
    if settings.runtime is not Runtime.TENSORRT_RTX:
        return  # it compiles for the GPU of this machine, whatever that is
    known = library.ComputeCapability
    chosen = known.CURRENT if wanted is None else getattr(known, f"SM{wanted}", None)
    if chosen is None:
        there = ", ".join(name for name in dir(known) if name.startswith("SM"))
        detail = f"TensorRT-RTX does not compile for SM{wanted}"
        raise BuildError(BuildCode.COMPILE, detail, f"it knows {there}")
    config.num_compute_capabilities = 1
    config.set_compute_capability(chosen, 0)


def _grant_precisions(
    library: Library, config: Binding, network: Binding, settings: CompileSettings
) -> None:
    flags, typed = library.BuilderFlag, library.NetworkDefinitionCreationFlag
    strongly = getattr(typed, "STRONGLY_TYPED", None)
    if strongly is not None and network.get_flag(strongly):
        return
    wanted = set()
    if settings.dla_core is not None or any(_is_half(library, layer) for layer in _layers(network)):
        wanted.add("FP16")
    if any(layer.type.name in _QUANTISING for layer in _layers(network)):
        wanted |= {"FP16", "INT8"}
    for name in sorted(wanted):
        if hasattr(flags, name):
            config.set_flag(getattr(flags, name))


def _layers(network: Binding) -> Iterator[Binding]:
    return (network.get_layer(index) for index in range(network.num_layers))


def _is_half(library: Library, layer: Binding) -> bool:
    half = library.DataType.HALF
    return any(layer.get_output(index).dtype == half for index in range(layer.num_outputs))


def _place_on_dla(
    library: Library, builder: Binding, config: Binding, settings: CompileSettings
) -> None:
    if settings.dla_core is None:
        return
    if settings.dla_core >= builder.num_DLA_cores:
        detail = f"there is no DLA core {settings.dla_core} here"
        hint = "build this target on a board that has one (Xavier, Orin NX, AGX Orin)"
        raise BuildError(BuildCode.COMPILE, detail, hint)
    config.default_device_type = library.DeviceType.DLA
    config.DLA_core = settings.dla_core
    config.set_flag(library.BuilderFlag.GPU_FALLBACK)


def _add_profile(
    builder: Binding, config: Binding, network: Binding, settings: CompileSettings
) -> None:
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    free = {tensor.name for tensor in inputs if any(dim < 0 for dim in tuple(tensor.shape))}
    if missing := free - set(settings.profile):
        detail = f"input {min(missing)} has free dimensions and no shape range"
        raise BuildError(BuildCode.COMPILE, detail, "give the target a profile for it")
    if not free:
        return
    profile = builder.create_optimization_profile()
    for name in sorted(free):
        shapes = settings.profile[name]
        profile.set_shape(name, shapes.min, shapes.opt, shapes.max)
    config.add_optimization_profile(profile)
