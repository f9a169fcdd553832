"""What is different between two releases or two files. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.inspection.look import Inspected, name_of
from stoker_builder.inspection.onnx_facts import FileFacts
from stoker_contract.manifest import Artifact, EngineIO, Manifest
from stoker_contract.target import runtime_of

_LATENCY: Final = ("p50_ms", "p95_ms", "p99_ms")


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not the same; None is absent.

    Attributes:
        where: the path to it, the outermost name first.
    """

    where: tuple[str, ...]
    before: str | float | None
    after: str | float | None

    def to_object(self) -> dict[str, Any]:
        """As JSON."""
        return {"where": list(self.where), "before": self.before, "after": self.after}


def differences(before: Inspected, after: Inspected) -> tuple[Difference, ...]:
    """Compare two things of the same kind; empty when they are the same.

    Raises:
        BuildError: ``BAD_REQUEST``, a release is compared with a file.
    """
    if before.manifest is not None and after.manifest is not None:
        return tuple(_compare((), _release(before.manifest), _release(after.manifest)))
    if before.manifest is None and after.manifest is None:
        (one,), (other,) = before.files.values(), after.files.values()
        return tuple(_compare((), _file(one), _file(other)))
    detail = f"{before.path} is a {before.kind}, {after.path} is a {after.kind}"
    raise BuildError(BuildCode.BAD_REQUEST, detail, "compare two releases, or two files")


def _compare(
    where: tuple[str, ...], before: Mapping[str, Any], after: Mapping[str, Any]
) -> Iterator[Difference]:
    for key in dict.fromkeys((*before, *after)):
        old, new = before.get(key), after.get(key)
        if old == new:
            continue
        if isinstance(old, Mapping) or isinstance(new, Mapping):
            yield from _compare((*where, key), _mapping(old), _mapping(new))
        else:
            yield Difference((*where, key), old, new)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _release(manifest: Manifest) -> dict[str, Any]:
    certified, calibrated = manifest.certification, manifest.calibration
    return {
        "release": manifest.release,
        "counter": manifest.counter,
        "min_counter": manifest.min_counter,
        "dev": str(manifest.dev),
        "source": manifest.source.digest if manifest.source else None,
        "preprocessing": manifest.preprocessing,
        "calibration": calibrated.digest if calibrated else None,
        "certification": certified.digest if certified else None,
        "builder": manifest.builder,
        "targets": _targets(manifest),
    }


def _targets(manifest: Manifest) -> dict[str, Any]:
    """By target; what comes second for one is for devices that lack the first one's runtime."""
    named: dict[str, Any] = {}
    for one in manifest.artifacts:
        name = one.target.name
        while name in named:
            name += ", fallback"
        named[name] = _artifact(one)
    return named


def _artifact(one: Artifact) -> dict[str, Any]:
    accuracy, latency = one.accuracy, one.latency
    return {
        "file": name_of(one),
        "digest": one.digest,
        "runtime": runtime_of(one.kind, one.session.runtime).value,
        "precision": one.precision.value,
        "recipe": one.recipe,
        "session": {key: str(value) for key, value in one.session.to_object().items()},
        "size": one.length,
        "io": _io(one.io),
        "accuracy": {}
        if accuracy is None
        else {
            "metric": accuracy.metric,
            "reached": accuracy.candidate,
            "loss": accuracy.loss,
            "loss bound": accuracy.loss_bound,
            "budget": accuracy.budget,
            "gate": accuracy.gate,
            "samples": accuracy.samples,
            "certified on": accuracy.certified_on,
        },
        "latency": {}
        if latency is None
        else {
            **{name: getattr(latency, name) for name in _LATENCY},
            "vs eager": latency.speedup_vs_eager,
            "vs fp32": latency.speedup_vs_fp32,
            "measured on": latency.measured_on,
        },
        "memory": one.footprint.load_peak_bytes,
        "quantised share": one.fusion.quantised_mac_share if one.fusion else None,
        "golden": {
            "digest": one.golden.digest,
            "samples": one.golden.samples,
            "tolerance": one.golden.tolerance,
        },
    }


def _io(io: EngineIO) -> dict[str, str]:
    sides = (("input", io.inputs), ("output", io.outputs))
    return {
        f"{side} {spec.name}": f"{spec.dtype}{list(spec.shape)}"
        for side, specs in sides
        for spec in specs
    }


def _file(facts: FileFacts) -> dict[str, Any]:
    sides = (("input", facts.inputs), ("output", facts.outputs))
    return {
        "digest": facts.digest,
        "size": facts.size_bytes,
        "producer": facts.producer,
        "ir version": facts.ir_version,
        "opsets": facts.opsets,
        "io": {
            f"{side} {one.name}": f"{one.dtype}[{', '.join(one.shape)}]"
            for side, values in sides
            for one in values
        },
        "operators": facts.operators,
        "parameters": facts.parameters,
        "quantisation": {
            "style": facts.quantisation.style,
            "per channel": facts.quantisation.per_channel,
            "per tensor": facts.quantisation.per_tensor,
        },
        "nodes": facts.nodes,
        "weights": facts.weights,
    }
