"""A worker that hands its plan to a real TensorRT runtime without asking for a GPU first."""

import argparse
import sys
from pathlib import Path

import tensorrt_lean_bindings as trt

from stoker_contract.codes import ReasonCode
from stoker_contract.engine import EngineSpec
from stoker_engine import worker
from stoker_engine.engine import Engine, EngineError
from stoker_engine.tensorrt_library import logger_of


def load(path: str, spec: EngineSpec) -> Engine:
    """What a worker that trusts the library would do."""
    del spec
    logger, _ = logger_of(trt)
    trt.Runtime(logger).deserialize_cuda_engine(Path(path).read_bytes())
    raise EngineError(ReasonCode.LOAD_ERROR, "the library came back")


def main() -> int:
    """Serve with that loader."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--fd", type=int, required=True)
    return worker.serve(parser.parse_args().fd, load)


if __name__ == "__main__":
    sys.exit(main())
