"""Runs one file as a peer does; started by :class:`benchmarks.builder.peer_process.PeerProcess`."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.builder.peers import Arrays, OnnxRuntimePeer, OpenPeer, OpenVinoPeer, ShippedPeer

from stoker_builder.child_loop import answering_stream, opened_setup, serve
from stoker_builder.kernels.cap import LEVEL, check_capped
from stoker_contract.manifest import SessionOptions


def main() -> None:
    """Load what the set-up names, and serve."""
    answers = answering_stream()
    with opened_setup() as (setup, samples):
        peer = _open(setup, next(samples))
    if LEVEL in os.environ and "onnxruntime" in sys.modules:
        check_capped()
    serve(answers, peer.run, peer)


def _open(setup: Mapping[str, Any], inputs: Arrays) -> OpenPeer:
    path = Path(setup["path"])
    if setup["runtime"] == "stoker":
        return ShippedPeer(path, inputs, SessionOptions.parse_object(setup["session"]))
    if setup["runtime"] == "openvino":
        return OpenVinoPeer(path, inputs, setup["threads"], setup["precision"])
    return OnnxRuntimePeer(path, inputs, setup["threads"])


if __name__ == "__main__":
    main()
