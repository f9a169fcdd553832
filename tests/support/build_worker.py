"""A build worker in a process of its own, as ``stoker worker`` runs it, with a compiler of ours."""

import argparse
import sys
from pathlib import Path

from stoker_builder.workers.app import run_worker
from stoker_builder.workers.client import ServiceClient
from stoker_builder.workers.describe import describe_worker
from stoker_builder.workers.queues import make_app
from stoker_builder.workers.worker import Worker
from support import stand_in_compiler, stand_in_prover
from support.build_service import TOKEN


def main() -> int:
    """Listen to the queues of the classes that are named."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--broker", required=True)
    parser.add_argument("--builds", required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--class", dest="classes", action="append", required=True)
    parser.add_argument("--visibility-s", type=float, default=3600.0)
    parser.add_argument("--stand-in", action="store_true")
    parser.add_argument("--root", type=Path, default=Path("/"))
    given = parser.parse_args()
    description = describe_worker(given.name, given.classes, given.root)
    worker = Worker(ServiceClient(given.builds, TOKEN), description)
    if given.stand_in:
        compiler = (sys.executable, stand_in_compiler.__file__)
        prover = (sys.executable, stand_in_prover.__file__)
        worker = Worker(worker.client, description, compiler=compiler, prover=prover)
    return run_worker(make_app(given.broker, visibility_s=given.visibility_s), worker)


if __name__ == "__main__":
    sys.exit(main())
