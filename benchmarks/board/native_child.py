"""Asks CUDA or a TensorRT what it is, in a process of its own: asking may crash."""

import json
import os
import sys
from dataclasses import asdict

from stoker_contract.target import Runtime
from stoker_engine.cuda import open_cuda
from stoker_engine.engine import EngineError
from stoker_engine.tensorrt_library import import_library


def gpu() -> dict[str, object]:
    """The first GPU."""
    cuda = open_cuda()
    found = cuda.gpu
    cuda.close()
    memory = "shared memory" if found.integrated else "memory of its own"
    said = f"{found.name}, compute capability {found.sm}, {memory}"
    return {**asdict(found), "said": said}


def main(question: str, *names: str) -> None:
    """Answer one question as JSON on standard output."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print where they like
    try:
        told = gpu() if question == "gpu" else {"said": import_library(Runtime(*names)).__version__}
    except EngineError as error:
        told = {"why": error.detail}
    answers.write(json.dumps(told))
    answers.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
