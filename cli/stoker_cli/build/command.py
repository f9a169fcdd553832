"""The command line of ``stoker build``."""

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, get_args

import typer

from stoker_builder.tensorrt.settings import ShapeRange
from stoker_cli.build_service import DEFAULT_TOKEN
from stoker_cli.errors import CommandError
from stoker_contract.manifest import Accelerator
from stoker_contract.target import Runtime

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


class Gate(StrEnum):
    """What has to be within the budget."""

    BOUND = "bound"
    POINT = "point"


class OptimiseFor(StrEnum):
    """What cores are used for."""

    LATENCY = "latency"
    THROUGHPUT = "throughput"


class Precision(StrEnum):
    """Which candidates are made."""

    AUTO = "auto"
    FP32 = "fp32"


_Model = Annotated[
    str,
    typer.Option(
        help="an .onnx file, or a factory: package.module:function or file.py:function",
        metavar="MODEL",
    ),
]
_Weights = Annotated[
    Path | None,
    typer.Option(
        help="for the factory's model: .safetensors, or a state dict in .pt", metavar="FILE"
    ),
]
_Shape = Annotated[
    list[str] | None,
    typer.Option(
        help="insist on the shape of an input, repeatable; else it is that of the samples",
        metavar="NAME=1,3,224,224",
    ),
]
_PlanShape = Annotated[
    list[str] | None,
    typer.Option(
        help="the shapes an input of plans may have, repeatable: at least, usually, at most",
        metavar="NAME=1,3,224,224/4,3,224,224/8,3,224,224",
    ),
]
_Reference = Annotated[
    str | None,
    typer.Option(help="the FP32 model that a quantised --model was made from", metavar="MODEL"),
]
_TrustModelCode = Annotated[
    bool,
    typer.Option(
        "--trust-model-code",
        help="load a .pt2, .pt or pickled --model, whose code runs, in a process without network",
    ),
]
_Data = Annotated[
    str,
    typer.Option(
        help="the data set: package.module:function or file.py:function", metavar="FUNCTION"
    ),
]
_DataArgument = Annotated[
    list[str] | None,
    typer.Option(help="a keyword argument of that function, repeatable", metavar="KEY=VALUE"),
]
_Targets = Annotated[
    str,
    typer.Option(
        help="comma-separated: names (`stoker target list`), or .toml files of your own",
        metavar="NAMES",
    ),
]
_Runtimes = Annotated[
    str, typer.Option(help="that the devices may have, comma-separated", metavar="NAMES")
]
_Accelerators = Annotated[
    str,
    typer.Option(
        help="tensorrt, cuda: of ONNX Runtime that devices may run FP32 on, if they have them",
        metavar="NAMES",
    ),
]
_Cache = Annotated[
    Path | None,
    typer.Option(help="keeps what builds found out; ~/.cache/stoker/builds", metavar="FOLDER"),
]
_Output = Annotated[Path, typer.Option(help="the release folder to write", metavar="FOLDER")]
_Counter = Annotated[int, typer.Option(help="rises with every release of this model", min=1)]
_MinCounter = Annotated[
    int, typer.Option(help="devices that saw this release take none below it", min=0)
]
_Budget = Annotated[float, typer.Option(help="accuracy that INT8 may cost, in points")]
_SliceBudget = Annotated[
    float, typer.Option(help="what any class or group of samples may lose, in points")
]
_Gate = Annotated[
    Gate, typer.Option(help="ask the 95 % bound of the loss to be within the budget, or the loss")
]
_Precision = Annotated[Precision, typer.Option(help="fp32 makes no INT8 candidates")]
_Samples = Annotated[
    int | None, typer.Option(help="certify on at most so many samples", min=1, metavar="N")
]
_Latency = Annotated[
    float | None,
    typer.Option(help="time each variant for so long; 0 for not at all", min=0.0, metavar="S"),
]
_Cores = Annotated[
    int,
    typer.Option(
        help="of a device that inference may use; how each artifact uses them is measured", min=1
    ),
]
_OptimiseFor = Annotated[
    OptimiseFor, typer.Option(help="of one caller, or of many: what more than one core is used for")
]
_TorchRoutes = Annotated[
    str,
    typer.Option(
        help="PyTorch's own ways that are timed too: eager twice, all, or names", metavar="NAMES"
    ),
]
_Emulation = Annotated[
    float | None,
    typer.Option(help="for targets that this CPU is not; 0 for none", min=0.0, metavar="S"),
]
_Builds = Annotated[
    str | None,
    typer.Option(
        help="the build service whose workers compile for boards",
        metavar="URL",
        envvar="STOKER_BUILDS",
    ),
]
_TokenFile = Annotated[
    Path,
    typer.Option(
        help="the token of that service", metavar="FILE", envvar="STOKER_BUILDS_TOKEN_FILE"
    ),
]
_Ca = Annotated[Path | None, typer.Option(help="whom to trust about that service", metavar="FILE")]
_Wait = Annotated[
    float | None,
    typer.Option(help="give up a plan that is not there after so long", min=0.0, metavar="S"),
]
_Profile = Annotated[
    Path | None,
    typer.Option(help="write traces of what ships, for Perfetto", metavar="FOLDER"),
]
_Quick = Annotated[
    bool, typer.Option("--quick", help="fewer candidates, less timing, less emulation")
]


@app.command()
def build(  # noqa: PLR0913  one parameter per option
    *,
    model: _Model,
    data: _Data,
    name: Annotated[str, typer.Option(help="of the model")],
    version: Annotated[str, typer.Option(help="of this release")],
    counter: _Counter,
    output: _Output,
    weights: _Weights = None,
    shape: _Shape = None,
    plan_shape: _PlanShape = None,
    reference: _Reference = None,
    trust_model_code: _TrustModelCode = False,
    data_arg: _DataArgument = None,
    targets: _Targets = "x86-64-v3,x86-64-vnni",
    runtimes: _Runtimes = "onnxruntime,openvino",
    accelerators: _Accelerators = "",
    min_counter: _MinCounter = 0,
    budget: _Budget = 1.0,
    relative: Annotated[
        bool, typer.Option("--relative", help="the budget is per cent of what FP32 reaches")
    ] = False,
    slice_budget: _SliceBudget = 5.0,
    gate: _Gate = Gate.BOUND,
    precision: _Precision = Precision.AUTO,
    samples: _Samples = None,
    latency_s: _Latency = None,
    cores: _Cores = 1,
    optimise_for: _OptimiseFor = OptimiseFor.LATENCY,
    torch_routes: _TorchRoutes = "eager",
    emulation_budget_s: _Emulation = None,
    builds: _Builds = None,
    token_file: _TokenFile = DEFAULT_TOKEN,
    ca: _Ca = None,
    wait_s: _Wait = None,
    profile: _Profile = None,
    quick: _Quick = False,
    unsafe_skip_gates: Annotated[
        bool, typer.Option("--unsafe-skip-gates", help="ship INT8 unjudged, for development")
    ] = False,
    cache: _Cache = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="find out everything again")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print the report as JSON")] = False,
) -> None:
    """Make a release from a PyTorch or ONNX model: quantise, gate, measure, select."""
    from stoker_builder import request as defaults  # noqa: PLC0415  --help should not pay for it
    from stoker_builder.cache import default_folder  # noqa: PLC0415
    from stoker_builder.models.source import Terms  # noqa: PLC0415

    request = defaults.BuildRequest(
        model=model,
        weights=weights,
        terms=Terms(shapes=_shapes(shape or []), reference=reference, trust_code=trust_model_code),
        data=data,
        data_arguments=_arguments(data_arg or []),
        output=output,
        name=name,
        version=version,
        counter=counter,
        min_counter=min_counter,
        targets=_names(targets),
        runtimes=_runtimes(runtimes),
        plan_shapes=_plan_shapes(plan_shape or []),
        accelerators=_accelerators(accelerators),
        precision=precision.value,
        budget=budget / 100,
        relative=relative,
        slice_budget=slice_budget / 100,
        gate=gate.value,
        certification_samples=samples,
        latency_s=_given(latency_s, defaults.QUICK_LATENCY_S if quick else defaults.LATENCY_S),
        cores=cores,
        goal=optimise_for.value,
        baselines=not quick,
        comparisons=not quick,
        torch_routes=_routes(torch_routes),
        emulation_budget_s=_given(
            emulation_budget_s,
            defaults.QUICK_EMULATION_BUDGET_S if quick else defaults.EMULATION_BUDGET_S,
        ),
        unsafe_skip_gates=unsafe_skip_gates,
        builds=None
        if builds is None
        else defaults.BuildService(builds, token_file, ca, _given(wait_s, defaults.WAIT_S)),
        profile=profile,
        cache=None if no_cache else cache or default_folder(),
    )
    from stoker_builder.pipeline import build as run_build  # noqa: PLC0415  imports onnx and more
    from stoker_cli.build.bars import Bars  # noqa: PLC0415  imports rich
    from stoker_cli.build.render import show  # noqa: PLC0415  imports rich

    with Bars() as progress:
        result = run_build(request, progress)
    if as_json:
        sys.stdout.write(json.dumps(result.report.to_object(), indent=2, sort_keys=True) + "\n")
    else:
        show(result.report, result.output)


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _runtimes(text: str) -> tuple[Runtime, ...]:
    try:
        return tuple(Runtime(name) for name in _names(text))
    except ValueError:
        detail = f"--runtimes is {text!r}"
        known = ", ".join(Runtime)
        raise CommandError(detail, hint=f"there are: {known}") from None


def _accelerators(text: str) -> tuple[Accelerator, ...]:
    known = get_args(Accelerator)
    if unknown := [name for name in _names(text) if name not in known]:
        detail = f"--accelerators has {unknown[0]!r}"
        raise CommandError(detail, hint=f"there are: {', '.join(known)}")
    return tuple(name for name in known if name in _names(text))


def _arguments(pairs: list[str]) -> dict[str, str]:
    arguments = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not key.isidentifier():
            detail = f"--data-arg is {pair!r}"
            raise CommandError(detail, hint="write --data-arg key=value")
        arguments[key] = value
    return arguments


def _shapes(pairs: list[str]) -> dict[str, tuple[int, ...]]:
    shapes = {}
    for pair in pairs:
        name, separator, sizes = pair.rpartition("=")
        parts = sizes.split(",")
        if not separator or not name or not all(p.isascii() and p.isdigit() for p in parts):
            detail = f"--shape is {pair!r}"
            raise CommandError(detail, hint="write --shape name=1,3,224,224")
        shapes[name] = tuple(int(part) for part in parts)
    return shapes


def _plan_shapes(pairs: list[str]) -> dict[str, ShapeRange]:
    ranges = {}
    for pair in pairs:
        name, separator, text = pair.rpartition("=")
        try:
            low, usual, high = (tuple(map(int, sizes.split(","))) for sizes in text.split("/"))
            ranges[name] = ShapeRange(min=low, opt=usual, max=high)
        except ValueError:
            separator = ""
        if not separator or not name:
            detail = f"--plan-shape is {pair!r}"
            hint = "write --plan-shape name=1,3,224,224/4,3,224,224/8,3,224,224, rising"
            raise CommandError(detail, hint=hint)
    return ranges


def _routes(names: str) -> tuple[str, ...]:
    from stoker_builder.latency.torch_routes import DEFAULT_ROUTES, ROUTES  # noqa: PLC0415

    short = {"eager": DEFAULT_ROUTES, "all": tuple(ROUTES)}
    listed = (part.strip() for part in names.split(",") if part.strip())
    return tuple(dict.fromkeys(n for name in listed for n in short.get(name, (name,))))


def _given(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value
