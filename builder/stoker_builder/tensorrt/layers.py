"""What the compiler made of a graph, layer by layer, as the engine inspector tells it. Pure.

The inspector needs the engine, and the engine its GPU: where a plan is compiled without one,
nobody can look inside, and only what the graph asks for is known.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from stoker_contract.document import Document
from stoker_contract.names import Count, Ratio, ShortText

_MULTIPLYING: Final = ("convolution", "matrixmultiply", "matrix_multiply", "gemm", "fullyconnected")
_DLA_MESSAGE: Final = "[DlaLayer]"
_MAX_NAMES: Final = 64
_MAX_CHARACTERS: Final = 256


class PlanLayers(Document):
    """The layers of a compiled plan.

    Attributes:
        layers: after fusion.
        multiplying: of them, convolutions and matrix products.
        int8: of those, the ones that take INT8.
        float_layers: those that do not, by name.
        reformats: layers that only change how a tensor lies in memory.
        opaque: compiled as a whole, so that nothing is known of what is inside.
        on_dla: placed on the accelerator; each may be a whole subgraph.
    """

    layers: Count
    multiplying: Count = 0
    int8: Count = 0
    float_layers: tuple[ShortText, ...] = ()
    reformats: Count = 0
    opaque: Count = 0
    on_dla: Count = 0

    @property
    def int8_share(self) -> Ratio | None:
        """Of the layers that multiply; None where none is known to."""
        return self.int8 / self.multiplying if self.multiplying else None

    @property
    def words(self) -> str:
        """In a few words, for a cell of a table."""
        told = [f"{self.layers} layers"]
        told += [f"{self.int8} of {self.multiplying} int8"] if self.int8 else []
        told += [f"{self.reformats} reformats"] if self.reformats else []
        told += [f"{self.on_dla} on DLA"] if self.on_dla else []
        return ", ".join(told)


def layers_of(inspected: str, said: Sequence[str] = ()) -> PlanLayers | None:
    """Read what the inspector says of an engine; None where it says nothing.

    Args:
        inspected: ``get_engine_information`` as JSON, of a plan with detailed verbosity.
        said: messages of the library while it compiled, which tell what went to a DLA.
    """
    try:
        told = json.loads(inspected)
    except ValueError:
        return None
    # a plan without details has names for layers
    named = told.get("Layers") if isinstance(told, dict) else None
    layers = [one for one in named or () if isinstance(one, dict)]
    if not layers:
        return None
    kinds = [f"{one.get('LayerType', '')} {one.get('ParameterType', '')}".lower() for one in layers]
    products = [one for one, kind in zip(layers, kinds, strict=True) if _multiplies(kind)]
    floating = [str(one.get("Name", ""))[:_MAX_CHARACTERS] for one in products if not _int8(one)]
    on_dla = sum(_DLA_MESSAGE in text for text in said) or sum("dla" in kind for kind in kinds)
    return PlanLayers(
        layers=len(layers),
        multiplying=len(products),
        int8=len(products) - len(floating),
        float_layers=tuple(floating[:_MAX_NAMES]),
        reformats=sum(kind.startswith("reformat") for kind in kinds),
        opaque=sum("myelin" in kind for kind in kinds),
        on_dla=on_dla,
    )


def kinds_of(inspected: str) -> dict[str, str]:
    """The kind of each layer by its name, where the inspector tells both."""
    try:
        layers = json.loads(inspected).get("Layers", ())
    except ValueError:
        return {}
    told = [one for one in layers if isinstance(one, dict)]
    return {str(one.get("Name", "")): str(one.get("LayerType", "")) for one in told}


def is_placement(text: str) -> bool:
    """Whether a message of the library says what went to a DLA, and nothing else."""
    return _DLA_MESSAGE in text


def _multiplies(kind: str) -> bool:
    return any(name in kind for name in _MULTIPLYING)


def _int8(layer: Mapping[str, Any]) -> bool:
    taken = layer.get("Inputs") or [{}]
    first = taken[0] if isinstance(taken[0], dict) else {}
    return "int8" in str(first.get("Format/Datatype", first.get("Datatype", ""))).lower()
