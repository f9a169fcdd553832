"""From recipes to files, and what each runtime makes of each file."""

from dataclasses import asdict, replace
from pathlib import Path

from stoker_builder.bench import Bench
from stoker_builder.cache import digest_of_file
from stoker_builder.candidates.audit import MIN_SHARE_AT_ALL, Audit, audit, too_little
from stoker_builder.candidates.candidate import REFERENCE, Candidate
from stoker_builder.candidates.recipes import FP32, GIVEN, RECIPES, Recipe
from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.progress import Progress
from stoker_contract.manifest import DType
from stoker_contract.target import Arch, Runtime


def make_files(bench: Bench, progress: Progress) -> None:
    """Follow every recipe of every target; one that fails is remembered with its reason.

    What the reference was found to do must be in the audits: a recipe that would leave nearly
    all of it as it is is not followed.
    """
    if not bench.searched:
        return
    if bench.source.prequantised is not None:
        bench.files[GIVEN] = bench.source.prequantised.path
    names = []
    every = (name for target in bench.targets for name in bench.recipes_for(target))
    for name in dict.fromkeys(every):
        if reason := _not_worth_making(bench, RECIPES[name]):
            bench.failures[name] = reason
        else:
            names.append(name)
    _quantise(bench, names, progress)


def _not_worth_making(bench: Bench, recipe: Recipe) -> str:
    takes = {spec.dtype for spec in bench.source.io.inputs}
    if recipe.signed_inputs and DType.FP32 not in takes:
        return "the model takes no FP32"
    wanted = recipe.operators
    if wanted is None:
        return ""
    if not operators_in(bench.source.path) & set(wanted):
        return f"the model has no {' or '.join(wanted)} to quantise"
    share = bench.audits[REFERENCE.name].share_of(wanted)
    return "" if share >= MIN_SHARE_AT_ALL else too_little(share)


def _quantise(bench: Bench, names: list[str], progress: Progress) -> None:
    """Make what is not kept from another build."""
    from stoker_builder.candidates.crew import carry_out_all  # noqa: PLC0415  heavy tools
    from stoker_builder.candidates.orders import Order  # noqa: PLC0415
    from stoker_builder.candidates.quantise import Quantiser  # noqa: PLC0415

    quantiser = Quantiser(bench.source.path, bench.split.calibration, bench.scratch)
    total = len(bench.split.calibration) + len(names)
    with bench.stage(progress, "calibrate and quantise", total) as stage:

        def done(order: Order, failure: BuildError | None) -> None:
            name = order.recipe.name
            if failure is None:
                bench.cache.keep_file(_file_key(bench, name), order.path)
                bench.files[name] = order.path
            elif failure.code is BuildCode.QUANTISE:
                bench.failures[name] = failure.detail
            else:
                raise failure
            stage.advance()

        orders: list[Order] = []
        for name in names:
            path = bench.scratch / f"{name}.onnx"
            if bench.cache.file(_file_key(bench, name), path):
                bench.files[name] = path
                stage.advance()
                continue
            try:
                orders.append(quantiser.order(RECIPES[name], stage.advance))
            except BuildError as error:
                if error.code is not BuildCode.QUANTISE:
                    raise
                bench.failures[name] = error.detail
                stage.advance()
        carry_out_all(orders, done)
    # in the order of the recipes, whoever was ready first
    made = bench.files
    bench.files = {name: made[name] for name in (FP32, GIVEN, *names) if name in made}


def _file_key(bench: Bench, name: str) -> str:
    recipe = RECIPES[name]
    return bench.cache.key(
        "quantised",
        source=digest_of_file(bench.source.path),
        calibration=None if recipe.dynamic else bench.split.calibration.identity,
        recipe=asdict(recipe),
    )


def operators_in(path: Path) -> frozenset[str]:
    """The operators of a file that have a weight to quantise."""
    import onnx  # noqa: PLC0415  `stoker build --help` should not pay for it

    graph = onnx.load(path, load_external_data=False).graph
    held = {tensor.name for tensor in graph.initializer}
    made = {name for node in graph.node if node.op_type == "Constant" for name in node.output}
    return frozenset(
        node.op_type for node in graph.node if len(node.input) > 1 and node.input[1] in held | made
    )


def audit_reference(bench: Bench, progress: Progress) -> None:
    """Have ONNX Runtime open FP32, which everything else is compared with.

    Raises:
        BuildError: it can not be run.
    """
    with bench.stage(progress, "audit what was fused", 1) as stage:
        bench.audits[REFERENCE.name] = _audit(bench, REFERENCE, None)
        stage.advance()


def audit_candidates(bench: Bench, progress: Progress) -> None:
    """Have each runtime open each file that it did not, and count what it runs in integers."""
    wanted = {
        bench.audit_name(c, target.arch): (c, target.arch)
        for target in bench.targets
        for c in bench.candidates(target)
    }
    todo = {
        name: (c, None if name == c.name else arch)
        for name, (c, arch) in wanted.items()
        if c.recipe in bench.files
        and name not in bench.audits
        and not {name, c.recipe} & bench.failures.keys()
    }
    if not todo:
        return
    with bench.stage(progress, "audit what was fused", len(todo)) as stage:
        for name, (candidate, arch) in todo.items():
            try:
                bench.audits[name] = _audit(bench, candidate, arch)
            except BuildError as error:
                # a candidate that can not be opened is one that lost; so is, later, one that
                # can not be run where its kernels are
                bench.failures[name] = error.detail
            stage.advance()


def _audit(bench: Bench, candidate: Candidate, arch: Arch | None) -> Audit:
    key = bench.cache.key(
        "audit",
        file=digest_of_file(bench.files[candidate.recipe]),
        session=candidate.session.to_object(),
        inputs={name: array.shape for name, array in bench.example.items()},
        isa=bench.machine.isa,
        arch=arch,
    )
    known = bench.cache.value(key)
    found = Audit.of(known) if known is not None else _audit_all(bench, candidate, arch)
    if known is None:
        bench.cache.keep_value(key, asdict(found))
    repair = bench.repair_of(candidate.recipe)
    if repair is not None:
        of_base = replace(candidate, recipe=repair.base)
        base = bench.audits.get(bench.audit_name(of_base, arch or bench.machine.arch))
        return found if base is None else found.beside(base)
    recipe = RECIPES.get(candidate.recipe)
    if recipe is None or recipe.operators is None:
        return found
    return found.among(recipe.operators, recipe.min_channels)


def _audit_all(bench: Bench, candidate: Candidate, arch: Arch | None) -> Audit:
    path = bench.files[candidate.recipe]
    if candidate.runtime is Runtime.OPENVINO:
        from stoker_builder.candidates.openvino_audit import audit_openvino  # noqa: PLC0415

        return audit_openvino(path, candidate.session)
    return audit(path, bench.example, bench.scratch, arch)
