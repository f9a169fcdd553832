"""Plans for more shapes than one: dimensions opened again in the graph, and proved to be free.

A build fixes free dimensions first, since everything else in it is measured with one shape. A plan
may have a range for each input instead. That nothing inside the graph depends on the fixed size
is not believed but tried, in ONNX Runtime, before anything is compiled.
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from onnx import numpy_helper

from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.kernels.sessions import Session, Tensor
from stoker_builder.tensorrt.settings import ShapeRange
from stoker_contract.manifest import EngineIO, TensorSpec

Ranges = Mapping[str, ShapeRange]
Sizes = Mapping[str, tuple[int, ...]]
Sample = Mapping[str, Tensor]

# Other batches may take other kernels, which add in another order; half precision shows it most.
_CLOSE: Final = 0.02
_DISTINCT: Final = 3
_HINT: Final = "export the model with these dimensions free, or build plans for one shape"


def check_ranges(ranges: Ranges, sample: Sample) -> None:
    """See that each range is one of an input, and takes the samples.

    Raises:
        BuildError: ``DATA_MISMATCH``.
    """
    for name, shapes in ranges.items():
        if name not in sample:
            detail = f"--plan-shape names {name}, the samples have {sorted(sample)}"
            raise BuildError(BuildCode.DATA_MISMATCH, detail, "name an input of the samples")
        given = sample[name].shape
        fits = len(given) == len(shapes.min) and all(
            low <= size <= high
            for low, size, high in zip(shapes.min, given, shapes.max, strict=True)
        )
        if not fits:
            detail = f"--plan-shape {name} is {_words(shapes)}, the samples have {list(given)}"
            hint = "the samples certify the plan, so their shape has to be within the range"
            raise BuildError(BuildCode.DATA_MISMATCH, detail, hint)


def opened(model: onnx.ModelProto, ranges: Ranges) -> onnx.ModelProto:
    """A copy whose inputs are free where their ranges are.

    Exporters write the batch into the shapes of reshapes; there it follows from the rest.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    batches: set[int] = set()
    for value in copy.graph.input:
        if (shapes := ranges.get(value.name)) is None:
            continue
        dims = value.type.tensor_type.shape.dim
        for axis, (low, high) in enumerate(zip(shapes.min, shapes.max, strict=True)):
            if low != high and axis == 0:
                batches.add(dims[axis].dim_value)
            if low != high:
                # one batch for all inputs; of other dimensions nobody knows that they are equal
                dims[axis].dim_param = "batch" if axis == 0 else f"{value.name}_{axis}"
    _open_reshapes(copy.graph, batches)
    # what was inferred speaks of dimensions that are no longer fixed
    del copy.graph.value_info[:]
    for value in copy.graph.output:
        value.type.tensor_type.ClearField("shape")
    return onnx.shape_inference.infer_shapes(copy, data_prop=True)


def proved(path: Path, source: Path, ranges: Ranges, sample: Sample) -> dict[str, Sizes]:
    """Run an opened graph at the ends of its ranges, and see that a batch is its samples.

    Args:
        path: the opened graph.
        source: the graph that it was made from, which takes the sample's shapes.
        ranges: of the inputs.
        sample: its shapes are within them.

    Returns:
        The shapes of all inputs and outputs, as ``min``, ``opt`` and ``max``.

    Raises:
        BuildError: ``TENSORRT_GRAPH``, the graph takes or means only one shape.
    """
    session, original = Session(path), Session(source)
    batched = {name for name, shapes in ranges.items() if shapes.min[0] != shapes.max[0]}
    samples = [_shifted(sample, batched, places) for places in range(_DISTINCT)]
    alone = [original.run(one) for one in samples]
    _check_rows(session.run(sample), alone[:1])
    seen: dict[str, Sizes] = {}
    for end in ("min", "opt", "max"):
        shapes = {name: getattr(ranges[name], end) for name in ranges}
        rows = _rows(sample, shapes, batched)
        given = {name: _filled(name, samples, shapes) for name in sample}
        try:
            answers = session.run(given)
        except BuildError as error:
            detail = f"it does not take the {end} of --plan-shape: {error.detail}"
            raise BuildError(BuildCode.TENSORRT_GRAPH, detail, _HINT) from None
        if rows is not None:
            _check_rows(answers, [alone[row % _DISTINCT] for row in range(rows)])
        tensors = {**given, **answers}
        seen[end] = {name: tuple(array.shape) for name, array in tensors.items()}
    return seen


def bounded(io: EngineIO, seen: Mapping[str, Sizes]) -> EngineIO:
    """The tensors of a plan, with what its free dimensions may be."""

    def one(spec: TensorSpec) -> TensorSpec:
        if all(dim >= 0 for dim in spec.shape):
            return spec
        update = {"smallest": seen["min"][spec.name], "largest": seen["max"][spec.name]}
        return spec.model_copy(update=update)

    return EngineIO(
        inputs=tuple(one(spec) for spec in io.inputs),
        outputs=tuple(one(spec) for spec in io.outputs),
    )


def _open_reshapes(graph: onnx.GraphProto, batches: Collection[int]) -> None:
    """Let reshapes to a shape that begins with the batch take any; the proof finds the others."""
    held = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            held[node.output[0]] = node.attribute[0].t
    for node in graph.node:
        if node.op_type != "Reshape" or node.input[1] not in held:
            continue
        sizes = numpy_helper.to_array(held[node.input[1]]).copy()
        if sizes.size and sizes[0] in batches and 0 not in sizes:
            sizes[0] = 0 if -1 in sizes else -1  # 0 is what the input has there
            del node.attribute[:]  # "allowzero", which says otherwise
            name = f"{node.output[0]}.opened"
            graph.initializer.append(numpy_helper.from_array(sizes, name))
            node.input[1] = name


def _shifted(sample: Sample, batched: Collection[str], places: int) -> Sample:
    """Another sample, of numbers that this one has: what mixes a batch is seen on unlike ones."""
    return {
        name: np.roll(array, places) if name in batched else array for name, array in sample.items()
    }


def _filled(name: str, samples: Sequence[Sample], shapes: Mapping[str, tuple[int, ...]]) -> Tensor:
    """One input of a batch: the samples in turns."""
    if name not in shapes:
        return samples[0][name]
    return np.resize(np.concatenate([sample[name] for sample in samples]), shapes[name])


def _rows(
    sample: Sample, shapes: Mapping[str, tuple[int, ...]], batched: Collection[str]
) -> int | None:
    """How many samples a batch of these shapes has; None where more than that differs.

    Raises:
        BuildError: ``TENSORRT_GRAPH``, it has no whole number of them.
    """
    if any(shape[1:] != sample[name].shape[1:] for name, shape in shapes.items()):
        return None
    counts = {divmod(shapes[n][0], len(sample[n])) for n in batched} or {(1, 0)}
    if len(counts) > 1 or any(left for _, left in counts):
        sizes = ", ".join(f"{name} {shapes[name][0]}" for name in sorted(batched))
        detail = f"--plan-shape makes no batches of whole samples: {sizes}"
        raise BuildError(BuildCode.TENSORRT_GRAPH, detail, _HINT)
    return next(iter(counts))[0]


def _check_rows(answers: Sample, alone: Sequence[Sample]) -> None:
    """See that each row of a batch is what its sample alone is answered."""
    for name, answer in answers.items():
        rows = [one[name] for one in alone]
        whole = np.concatenate(rows) if rows[0].ndim else rows[0]
        if answer.shape != whole.shape and all(np.array_equal(row, rows[0]) for row in rows):
            whole = rows[0]  # what does not depend on the input has no batch
        close = _CLOSE * max(float(np.max(np.abs(whole), initial=0)), 1e-6)
        if answer.shape != whole.shape or (
            answer.dtype.kind == "f" and not np.allclose(answer, whole, atol=close, rtol=0)
        ):
            detail = f"output {name} of a batch is not that of its samples"
            raise BuildError(BuildCode.TENSORRT_GRAPH, detail, _HINT)


def _words(shapes: ShapeRange) -> str:
    return f"{list(shapes.min)} to {list(shapes.max)}"
