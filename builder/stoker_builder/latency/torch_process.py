"""A PyTorch model as a variant to measure and to judge, in a child process of its own.

A third of eager's time on a small convolution net is page faults that a ``MALLOC_*`` setting
removes. That setting is read when a process starts and must not touch the other variants; and
``torch.compile`` changes settings of its whole process. So each of PyTorch's routes runs in a
child whose environment is its own, and takes turns with the parent::

    from stoker_builder.latency.torch_process import TorchChild
    from stoker_builder.latency.torch_routes import ROUTES

    with TorchChild(
        "package.module:factory", sample.inputs,
        route=ROUTES["torch-int8-static"], calibration=(s.inputs for s in some), threads=2,
    ) as child:
        outputs = child.run(sample.inputs)      # as a Session answers: for its accuracy
        nanoseconds = child.time_once_ns()      # a ``ChildTimed`` variant of ``measure``

A route that can not run this model raises ``BuildError`` (``MEASURE``) on entering, and the
error ends with what PyTorch said: a row of its own, never the end of a comparison.
"""

import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from stoker_builder.child_loop import Arrays
from stoker_builder.children import Limits, ModelChild
from stoker_builder.latency.torch_routes import EAGER, TorchRoute


class TorchChild(ModelChild):
    """A context manager whose value answers samples and times itself.

    Args:
        factory: ``package.module:function`` or ``path/to/file.py:function``, returning a module.
        inputs: the sample that is timed, in the order of the module's arguments, batch axis
            included.
        route: what is done with the module, see ``latency.torch_routes``.
        calibration: samples for the routes that need them; others do not look at them.
        weights: a safetensors file for ``load_state_dict``, unless the factory loads its own.
        threads: PyTorch's intra-op threads.
        run_timeout_s: for one inference.
    """

    def __init__(  # noqa: PLR0913 - the settings of one child
        self,
        factory: str,
        inputs: Arrays,
        *,
        route: TorchRoute = EAGER,
        calibration: Iterable[Arrays] = (),
        weights: Path | None = None,
        threads: int = 1,
        run_timeout_s: float = 120.0,
    ) -> None:
        setup = {
            "factory": factory,
            "weights": str(weights) if weights is not None else None,
            "threads": threads,
            "method": route.method,
        }
        super().__init__(
            "stoker_builder.latency.torch_child",
            setup,
            inputs,
            more=calibration if route.calibrated else (),
            title=route.title,
            hint="call the factory alone to see where",
            limits=Limits(route.start_timeout_s, run_timeout_s),
        )
        self._allocator = route.allocator
        self._threads = threads

    def _environment(self, scratch: Path) -> Mapping[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "OMP_"))}
        return {
            "TORCHINDUCTOR_CACHE_DIR": str(scratch / "inductor"),
            **kept,
            **self._allocator,
            "OMP_NUM_THREADS": str(self._threads),
            # compiling in helper processes would leave them behind, beside what is timed
            "TORCHINDUCTOR_COMPILE_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(["", *(p for p in sys.path if p)]),
        }
