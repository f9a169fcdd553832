"""An application on the device: requests at a fixed rate, whatever becomes of them (open loop).

A closed loop would send less when the server is slow and so hide what users feel; here latency
counts from the moment a request was due. Each answer is one JSON line, so that nothing is lost
when either side is killed. Run as ``python -m stoker_cli.demo.load``.
"""

import argparse
import asyncio
import json
import signal
import time
from pathlib import Path
from typing import TextIO

import numpy as np

from stoker_client.client import AsyncClient
from stoker_client.errors import InferError
from stoker_client.messages import Array

NS_PER_S = 1_000_000_000


async def _ask(client: AsyncClient, inputs: dict[str, Array], due_ns: int, out: TextIO) -> None:
    line: dict[str, object] = {"due_ns": due_ns}
    try:
        result = await client.infer(inputs)
    except InferError as error:
        line["error"] = str(error)
    else:
        line["digest"], line["release"] = result.digest, result.release
        line["answer"] = int(next(iter(result.values())).argmax())
    line["total_ns"] = time.monotonic_ns() - due_ns
    out.write(json.dumps(line) + "\n")


async def _send(arguments: argparse.Namespace) -> None:
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    frames = np.load(arguments.frames, allow_pickle=False)
    interval_ns = int(NS_PER_S / arguments.rate)
    with arguments.out.open("a", buffering=1) as out:
        async with (
            AsyncClient(arguments.slot, socket=arguments.socket) as client,
            asyncio.TaskGroup() as requests,
        ):
            number, first_ns = 0, time.monotonic_ns()
            while not stopped.is_set():
                due_ns = first_ns + number * interval_ns
                await asyncio.sleep(max(due_ns - time.monotonic_ns(), 0) / NS_PER_S)
                inputs = {arguments.input: frames[number % len(frames)]}
                requests.create_task(_ask(client, inputs, due_ns, out), name=f"request {number}")
                number += 1


def main() -> None:
    """Send until SIGTERM, then wait for the answers that are still out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--slot", required=True)
    parser.add_argument("--input", required=True, help="name of the input tensor")
    parser.add_argument("--frames", type=Path, required=True, help="an .npy, first axis the frame")
    parser.add_argument("--rate", type=float, required=True, help="requests a second")
    parser.add_argument("--out", type=Path, required=True, help="one JSON line for each request")
    asyncio.run(_send(parser.parse_args()))


if __name__ == "__main__":
    main()
