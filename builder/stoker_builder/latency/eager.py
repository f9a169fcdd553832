"""PyTorch eager as it was named before it was one of several routes."""

from collections.abc import Mapping
from pathlib import Path

from stoker_builder.latency.torch_process import Arrays, TorchChild
from stoker_builder.latency.torch_routes import EAGER, EAGER_TUNED, TUNED_ALLOCATOR

__all__ = ["TUNED_ALLOCATOR", "EagerChild"]


def EagerChild(  # noqa: N802  it was a class
    factory: str,
    inputs: Arrays,
    *,
    weights: Path | None = None,
    allocator: Mapping[str, str] | None = None,
) -> TorchChild:
    """Eager, with the tuned allocator or without."""
    route = EAGER_TUNED if allocator else EAGER
    return TorchChild(factory, inputs, route=route, weights=weights)
