"""A peer that is no route of PyTorch's, in a process of its own, as those are.

What one variant leaves in a process would become the next one's: memory in huge pages, and
settings that a runtime keeps for all that it has loaded.
"""

from pathlib import Path

from benchmarks.builder.peers import Arrays, Runtime

from stoker_builder.children import Limits, ModelChild
from stoker_contract.manifest import SessionOptions

MODULE = "benchmarks.builder.peer_child"


class PeerProcess(ModelChild):
    """A context manager whose value answers samples and times itself.

    Args:
        runtime: not ``torch``.
        path: the file that it loads.
        inputs: the timed sample.
        threads: it may use.
        precision: of what a peer in OpenVINO computes in floating point.
        session: of what stoker ships.
    """

    def __init__(  # noqa: PLR0913 - the settings of one child
        self,
        runtime: Runtime,
        path: Path,
        inputs: Arrays,
        *,
        threads: int,
        precision: str = "",
        session: SessionOptions | None = None,
    ) -> None:
        setup = {
            "runtime": runtime,
            "path": str(path),
            "threads": threads,
            "precision": precision,
            "session": session.to_object() if session is not None else None,
        }
        super().__init__(
            MODULE,
            setup,
            inputs,
            title=f"{path.name} in {runtime}",
            hint="load the file alone to see why",
            limits=Limits(),
        )
