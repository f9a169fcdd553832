"""PyTorch's own ways to run a model, as data: the rows that a release is compared with.

All but the first have the allocator that suits them, as whoever cares about speed would.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

TUNED_ALLOCATOR: Final[Mapping[str, str]] = MappingProxyType(
    {
        "MALLOC_TRIM_THRESHOLD_": "4294967296",
        "MALLOC_MMAP_THRESHOLD_": "4294967296",
        "MALLOC_TOP_PAD_": "268435456",
    }
)

Method = Literal[
    "eager", "dynamic-int8", "static-int8-fx", "static-int8", "compile", "compile-bf16"
]


@dataclass(frozen=True, slots=True)
class TorchRoute:
    """One way to run a module.

    Attributes:
        name: in tables and result files.
        title: for people.
        method: what ``torch_child`` does with the module before it is timed.
        calibrated: it needs samples to take the ranges of activations from.
        tuned_allocator: its process keeps freed memory instead of asking for it again.
        start_timeout_s: for importing PyTorch, making the model and preparing it.
    """

    name: str
    title: str
    method: Method
    calibrated: bool = False
    tuned_allocator: bool = True
    start_timeout_s: float = 600.0

    @property
    def allocator(self) -> Mapping[str, str]:
        """``MALLOC_*`` variables of its process."""
        return TUNED_ALLOCATOR if self.tuned_allocator else {}


EAGER: Final = TorchRoute(
    "eager", "PyTorch eager", "eager", tuned_allocator=False, start_timeout_s=120.0
)
EAGER_TUNED: Final = TorchRoute(
    "eager-tuned", "PyTorch eager, allocator tuned", "eager", start_timeout_s=120.0
)

ROUTES: Final[Mapping[str, TorchRoute]] = MappingProxyType(
    {
        route.name: route
        for route in (
            EAGER,
            EAGER_TUNED,
            TorchRoute("torch-compile", "torch.compile, frozen", "compile"),
            TorchRoute("torch-compile-bf16", "torch.compile, frozen, BF16", "compile-bf16"),
            TorchRoute("torch-int8-dynamic", "PyTorch INT8, dynamic, linear", "dynamic-int8"),
            TorchRoute(
                "torch-int8-static-fx",
                "PyTorch INT8, static, FX graph mode",
                "static-int8-fx",
                calibrated=True,
            ),
            TorchRoute(
                "torch-int8-static",
                "PyTorch INT8, static, torchao PT2E, compiled",
                "static-int8",
                calibrated=True,
            ),
        )
    }
)

DEFAULT_ROUTES: Final = (EAGER.name, EAGER_TUNED.name)
"""The routes of every build; the others take up to a minute each to prepare."""
