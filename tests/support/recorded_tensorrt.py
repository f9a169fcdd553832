"""TensorRT modules with exactly the names that real releases have, for code that needs a GPU.

The names are recorded from the real bindings (``scripts/record-tensorrt-api``): what is not
recorded for a release raises ``AttributeError`` here as it would there. What stands behind the
names is made up: a plan doubles its first input, on :class:`support.fake_cuda.FakeCuda`.
"""

# ruff: noqa: ANN401, SLF001 - in for a library without types, whose classes know each other

import enum
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np
import onnx

from support.fake_cuda import FakeCuda, memory
from support.plans import plan as plan_with

DATA: Final = Path(__file__).parents[1] / "data" / "tensorrt-api"
VERSIONS: Final = ("8.6.1", "10.3.0", "10.7.0", "10.13.3", "10.16.1", "11.0.0", "11.4.0")
RTX: Final = "rtx-1.7.1"
_NAMES: Final = {1: "FLOAT", 10: "HALF", 3: "INT8", 6: "INT32", 7: "INT64", 9: "BOOL", 2: "UINT8"}
_ITEM: Final = {"FLOAT": "float32", "HALF": "float16", "INT32": "int32", "INT64": "int64"}


class Recorded:
    """The base of every class: only recorded names can be read or set from outside."""

    _allowed: frozenset[str] = frozenset()
    _path = ""

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("_") and name not in type(self)._allowed:
            msg = f"{type(self)._path} has no {name} in this release"
            raise AttributeError(msg)
        return super().__getattribute__(name)

    def __setattr__(self, name: str, value: object) -> None:
        if not name.startswith("_") and name not in type(self)._allowed:
            msg = f"{type(self)._path} has no {name} in this release"
            raise AttributeError(msg)
        super().__setattr__(name, value)


def recorded_tensorrt(version: str, cuda: FakeCuda | None = None) -> Any:
    """The module of a release, on a fake GPU."""
    names: dict[str, list[str]] = json.loads((DATA / f"{version}.json").read_text())
    world = _World(version, cuda or FakeCuda())
    library: Any = ModuleType("tensorrt")
    library.__version__ = version.removeprefix("rtx-")
    library.world = world
    world.library = library
    for path, members in names.items():
        if "." not in path:
            setattr(library, path, _class_of(path, members, world))
    library.ILogger.Severity = _enumeration("Severity", names["ILogger.Severity"])
    return library


def _enumeration(path: str, members: list[str]) -> Any:
    values = {name: index for index, name in enumerate(set(members) - {"name", "value"})}
    return enum.IntEnum(path, dict(sorted(values.items())))


def _class_of(path: str, members: list[str], world: "_World") -> Any:
    if {"name", "value"} <= set(members) and members[0].isupper():
        return _enumeration(path, members)
    base = _BEHAVIOUR.get(path, Recorded)
    allowed = frozenset(members)
    return type(path, (base,), {"_allowed": allowed, "_path": path, "_world": world})


class _World:
    """What the objects of one module share, and what a test may look at."""

    def __init__(self, version: str, cuda: FakeCuda) -> None:
        self.version = version
        self.cuda = cuda
        self.library: Any = None
        self.dla_cores = 2
        self.refuse_build = ""
        self.refuse_plan = ""
        self.refuse_run = False
        self.says: tuple[str, ...] = ()
        self.inspected = '{"Layers": []}'
        self.layer_ms: tuple[tuple[str, float], ...] = ()
        self.timings: list[bytes] = []
        self.built: list[dict[str, Any]] = []
        self.contexts: list[Any] = []
        self.host_code: list[bool] = []

    def numbers(self) -> tuple[int, int, int, int]:
        """The version as a plan's header has it."""
        parts = [int(part) for part in self.version.removeprefix("rtx-").split(".")]
        one, two, three, four = (*parts, 0, 0)[:4]
        return one, two, three, four


class _Logger(Recorded):
    def __init__(self) -> None:
        pass


class _Builder(Recorded):
    _world: _World

    def __init__(self, logger: Any) -> None:
        self._logger = logger

    @property
    def num_DLA_cores(self) -> int:  # noqa: N802
        return self._world.dla_cores

    def create_network(self, flags: int) -> Any:
        network = self._world.library.INetworkDefinition()
        network._flags = flags
        return network

    def create_builder_config(self) -> Any:
        return self._world.library.IBuilderConfig()

    def create_optimization_profile(self) -> Any:
        return self._world.library.IOptimizationProfile()

    def build_serialized_network(self, network: Any, config: Any) -> bytes | None:
        world = self._world
        if world.refuse_build:
            self._logger.log(world.library.ILogger.Severity.ERROR, world.refuse_build)
            return None
        for text in world.says:
            self._logger.log(world.library.ILogger.Severity.INFO, text)
        description = {
            "inputs": [[t.name, t.dtype.name, list(t.shape)] for t in network._inputs],
            "outputs": [[t.name, t.dtype.name, list(t.shape)] for t in network._outputs],
            "profile": config._profile,
            "flags": sorted(flag.name for flag in config._flags),
            "network": network._flags,
            "pools": config._pools,
        }
        world.built.append(description)
        magic = b"vtrt" if world.version.startswith("rtx") else b"ftrt"
        body = json.dumps(description).encode()
        return plan_with(
            body, magic=magic, version=world.numbers(), capabilities=config._capabilities
        )


class _Network(Recorded):
    _world: _World
    _flags = 0

    def __init__(self) -> None:
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []
        self._ops: list[Any] = []

    num_inputs = property(lambda self: len(self._inputs))
    num_outputs = property(lambda self: len(self._outputs))
    num_layers = property(lambda self: len(self._ops))

    def get_input(self, index: int) -> Any:
        return self._inputs[index]

    def get_output(self, index: int) -> Any:
        return self._outputs[index]

    def get_layer(self, index: int) -> Any:
        return self._ops[index]

    def get_flag(self, flag: int) -> bool:
        return bool(self._flags >> int(flag) & 1)


class _Tensor(Recorded):
    def __init__(self, name: str, dtype: Any, shape: tuple[int, ...]) -> None:
        self.name, self.dtype, self.shape = name, dtype, shape


class _Layer(Recorded):
    def __init__(self, kind: Any, half: bool, world: _World) -> None:  # noqa: FBT001
        self.type = kind
        types = world.library.DataType
        self._output = world.library.ITensor("y", types.HALF if half else types.FLOAT, ())

    num_outputs = property(lambda _: 1)

    def get_output(self, index: int) -> Any:
        del index
        return self._output


class _Parser(Recorded):
    _world: _World

    def __init__(self, network: Any, logger: Any) -> None:
        self._network, self._logger = network, logger
        self._errors: list[str] = []

    num_errors = property(lambda self: len(self._errors))

    def get_error(self, index: int) -> Any:
        error = self._world.library.ParserError()
        error._text = self._errors[index]
        return error

    def parse(self, data: bytes) -> bool:
        library = self._world.library
        try:
            model = onnx.load_from_string(data)
        except Exception as error:  # noqa: BLE001
            self._errors.append(str(error))
            return False
        for values, tensors in (
            (model.graph.input, self._network._inputs),
            (model.graph.output, self._network._outputs),
        ):
            for value in values:
                kind = value.type.tensor_type
                # 8.6 has no 64-bit integers and narrows them, with a warning
                name = _NAMES[kind.elem_type]
                name = name if hasattr(library.DataType, name) else "INT32"
                shape = tuple(
                    d.dim_value if d.HasField("dim_value") else -1 for d in kind.shape.dim
                )
                tensors.append(library.ITensor(value.name, library.DataType[name], shape))
        halves = any(tensor.data_type == 10 for tensor in model.graph.initializer)
        kinds = {"QuantizeLinear": "QUANTIZE", "DequantizeLinear": "DEQUANTIZE"}
        for node in model.graph.node:
            kind = library.LayerType[kinds.get(node.op_type, "ACTIVATION")]
            layer = library.ILayer(kind, halves, self._world)
            self._network._ops.append(layer)
        return True


class _ParserError(Recorded):
    _text = ""

    def desc(self) -> str:
        return self._text


class _Config(Recorded):
    _world: _World

    def __init__(self) -> None:
        self._flags: set[Any] = set()
        self._pools: dict[str, int] = {}
        self._profile: dict[str, Any] = {}
        self._capabilities = 0
        self._cache: Any = None

    def set_flag(self, flag: Any) -> None:
        self._flags.add(flag)

    def set_memory_pool_limit(self, pool: Any, size: int) -> None:
        self._pools[pool.name] = size

    def add_optimization_profile(self, profile: Any) -> None:
        self._profile = profile._shapes

    def set_compute_capability(self, capability: Any, index: int) -> None:
        del index
        order = ("SM75", "SM80", "SM86", "SM89", "SM120", "SM121")
        self._capabilities |= 1 << order.index(capability.name)

    def create_timing_cache(self, data: bytes) -> Any:
        cache = self._world.library.ITimingCache()
        cache._data = data
        return cache

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:  # noqa: FBT001
        del ignore_mismatch
        self._world.timings.append(cache._data)
        self._cache = cache
        return cache._data in {b"", b"timings"}

    def get_timing_cache(self) -> Any:
        return self._cache


class _Cache(Recorded):
    _data = b""

    def serialize(self) -> bytes:
        return b"timings"


class _Profile(Recorded):
    def __init__(self) -> None:
        self._shapes: dict[str, Any] = {}

    def set_shape(self, name: str, low: Any, usual: Any, high: Any) -> None:
        self._shapes[name] = [list(low), list(usual), list(high)]


class _Runtime(Recorded):
    _world: _World

    def __init__(self, logger: Any) -> None:
        self._logger = logger

    def deserialize_cuda_engine(self, data: Any) -> Any:
        world = self._world
        world.host_code.append(self.engine_host_code_allowed)
        if world.refuse_plan:
            self._logger.log(world.library.ILogger.Severity.ERROR, world.refuse_plan)
            return None
        engine = world.library.ICudaEngine()
        engine._plan = json.loads(bytes(data[64:]))
        return engine

    def get_engine_validity(self, data: bytes) -> tuple[Any, int]:
        del data
        return self._world.library.EngineValidity.VALID, 0


class _Engine(Recorded):
    _world: _World
    _plan: dict[str, Any]

    def _tensors(self) -> list[list[Any]]:
        return [*self._plan["inputs"], *self._plan["outputs"]]

    def _tensor(self, name: str) -> list[Any]:
        return next(tensor for tensor in self._tensors() if tensor[0] == name)

    num_io_tensors = property(lambda self: len(self._tensors()))

    def get_tensor_name(self, index: int) -> str:
        return str(self._tensors()[index][0])

    def get_tensor_mode(self, name: str) -> Any:
        modes = self._world.library.TensorIOMode
        return modes.INPUT if name in [t[0] for t in self._plan["inputs"]] else modes.OUTPUT

    def get_tensor_dtype(self, name: str) -> Any:
        return self._world.library.DataType[self._tensor(name)[1]]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._tensor(name)[2])

    def get_tensor_location(self, name: str) -> Any:
        del name
        return self._world.library.TensorLocation.DEVICE

    def get_tensor_profile_shape(self, name: str, profile: int) -> Any:
        del profile
        return self._plan["profile"][name]

    def create_execution_context(self) -> Any:
        context = self._world.library.IExecutionContext()
        context._engine = self
        self._world.contexts.append(context)
        return context

    def create_engine_inspector(self) -> Any:
        return self._world.library.EngineInspector()


class _Context(Recorded):
    _world: _World
    _engine: Any

    def __init__(self) -> None:
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        low, _, high = self._engine._plan["profile"][name]
        pairs = zip(low, shape, high, strict=False)
        fits = len(shape) == len(low) and all(a <= b <= c for a, b, c in pairs)
        if fits:
            self._shapes[name] = tuple(shape)
        return fits

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        shape = self._shapes.get(name, self._engine.get_tensor_shape(name))
        if name in self._shapes or -1 not in shape:
            return tuple(shape)
        batch = next(iter(self._shapes.values()), (-1,))[0]
        return (batch, *shape[1:])

    def execute_async_v3(self, stream: int) -> bool:
        world = self._world
        if world.refuse_run:
            return False
        (source, kind, _), (to, _, _) = (self._engine._plan[k][0] for k in ("inputs", "outputs"))
        given, made = self.get_tensor_shape(source), self.get_tensor_shape(to)
        world.cuda.queues[stream].append(
            _doubling(self._addresses[source], self._addresses[to], given, made, _ITEM[kind])
        )
        if (profiler := getattr(self, "profiler", None)) is not None:
            for name, ms in world.layer_ms:
                profiler.report_layer_time(name, ms)
        return True


def _doubling(
    source: int, to: int, given: tuple[int, ...], made: tuple[int, ...], dtype: str
) -> Callable[[], None]:
    item = np.dtype(dtype).itemsize

    def run() -> None:
        taken = memory(source, int(np.prod(given)) * item).view(dtype)
        filled = memory(to, int(np.prod(made)) * item).view(dtype)
        filled[...] = taken[: filled.size] * 2

    return run


class _Inspector(Recorded):
    _world: _World

    def get_engine_information(self, form: Any) -> str:
        assert form.name == "JSON"
        return self._world.inspected


_BEHAVIOUR: Final[dict[str, type]] = {
    "Builder": _Builder,
    "EngineInspector": _Inspector,
    "IBuilderConfig": _Config,
    "ICudaEngine": _Engine,
    "IExecutionContext": _Context,
    "ILayer": _Layer,
    "ILogger": _Logger,
    "INetworkDefinition": _Network,
    "IOptimizationProfile": _Profile,
    "ITensor": _Tensor,
    "ITimingCache": _Cache,
    "OnnxParser": _Parser,
    "ParserError": _ParserError,
    "Runtime": _Runtime,
}
