"""The worker process: loads one artifact, then answers runs until the server is gone.

It is started by the server with one inherited socket. Several threads read that socket: it
keeps frames whole, so the kernel is the queue between them, and a run costs two wake-ups.
"""

import argparse
import contextlib
import hashlib
import mmap
import os
import socket
import sys
import threading
import time
from collections.abc import Sequence
from importlib.metadata import version
from typing import Final

from stoker_contract import hop
from stoker_contract.codes import ReasonCode
from stoker_contract.engine import EngineSpec
from stoker_contract.errors import ContractError
from stoker_contract.onnx_policy import scan_onnx
from stoker_contract.plan_header import HEADER_BYTES, read_plan_header, why_plan_unfit
from stoker_contract.target import ArtifactKind, runtime_of
from stoker_engine import isolation
from stoker_engine.backends import open_engine
from stoker_engine.engine import Engine, EngineError, EngineLostError, Loader, check_io
from stoker_engine.ring import Ring

EXIT_LOST: Final = 70


def main(argv: Sequence[str] | None = None) -> int:
    """Run a worker on an inherited socket. Started by the server only."""
    parser = argparse.ArgumentParser(prog="stoker-engine", description=__doc__)
    parser.add_argument("--version", action="version", version=version("stoker"))
    parser.add_argument("--fd", type=int, required=True, help="inherited socket to the server")
    arguments = parser.parse_args(argv)
    return serve(arguments.fd)


def serve(fd: int, loader: Loader | None = None) -> int:
    """Load what the first frame names and answer runs. Returns the exit status."""
    isolation.die_with_parent()
    isolation.leave_ending_to_parent()
    isolation.leave_network()
    with socket.socket(fileno=fd) as channel:
        try:
            start = hop.Start.parse(channel.recv(hop.MAX_FRAME_BYTES)[1:])
            isolation.lower_priority(start.niceness, start.oom_score_adj)
            begin_ns = time.monotonic_ns()
            engine = load(start, loader)
            ring = Ring(start.ring_fd, start.ring, start.spec.io)
        except (ContractError, EngineError) as error:
            refusal = hop.Refusal(code=error.code, detail=error.detail)
            channel.send(hop.REFUSAL + refusal.encode())
            return 1
        handshake = hop.Handshake(
            digest=start.spec.digest,
            pid=os.getpid(),
            io=engine.io,
            load_s=(time.monotonic_ns() - begin_ns) / 1e9,
            rss_bytes=isolation.resident_bytes(),
        )
        channel.send(hop.HANDSHAKE + handshake.encode())
        _answer_until_closed(channel, engine, ring, start)
        engine.close()
    return 0


def load(start: hop.Start, loader: Loader | None = None) -> Engine:
    """Check the inherited artifact and load it.

    Raises:
        EngineError: ``DIGEST_MISMATCH``, ``LOAD_ERROR``, ``PLAN_MISMATCH``, ``NO_GPU`` or
            ``MEMORY``.
        ContractError: ``UNSAFE_MODEL``, ``UNSUPPORTED``.
    """
    if start.memory_limit_bytes is not None:
        isolation.limit_memory(start.memory_limit_bytes)
    check_artifact(start.artifact_fd, start.spec)
    try:
        engine = (loader or load_spec)(f"/proc/self/fd/{start.artifact_fd}", start.spec)
    except MemoryError:
        detail = "the engine needs more memory than it is allowed"
        raise EngineError(ReasonCode.MEMORY, detail) from None
    check_io(start.spec.io, engine.io)
    os.close(start.artifact_fd)
    return engine


def load_spec(path: str, spec: EngineSpec) -> Engine:
    """The usual loader: the runtime that the artifact names. See :class:`Loader`."""
    return open_engine(path, spec.kind, spec.session)


def check_artifact(fd: int, spec: EngineSpec) -> None:
    """Hash the inherited bytes and look through them before a runtime is even imported.

    Raises:
        EngineError: ``DIGEST_MISMATCH``, or ``PLAN_MISMATCH`` for a plan of another runtime.
        ContractError: ``UNSAFE_MODEL``.
    """
    size = os.fstat(fd).st_size
    if size != spec.length or size == 0:
        detail = f"the artifact has {size} bytes, {spec.length} were promised"
        raise EngineError(ReasonCode.DIGEST_MISMATCH, detail)
    with mmap.mmap(fd, size, prot=mmap.PROT_READ) as data, memoryview(data) as view:
        digest = hashlib.sha256(view).hexdigest()
        if digest != spec.digest:
            detail = f"the artifact is {digest}, {spec.digest} was promised"
            raise EngineError(ReasonCode.DIGEST_MISMATCH, detail)
        if spec.kind is ArtifactKind.ONNX:
            scan_onnx(view, spec.limits)
        elif spec.kind is ArtifactKind.TENSORRT_PLAN:
            # a copy: an error that holds a view would keep the mapping from being closed
            _check_plan(bytes(view[:HEADER_BYTES]), spec)
        else:
            # whoever signed it: what no policy has looked through reaches no runtime
            detail = f"there is no static policy for {spec.kind}; ship it as onnx"
            raise ContractError(ReasonCode.UNSAFE_MODEL, detail)


def _check_plan(head: bytes, spec: EngineSpec) -> None:
    header = read_plan_header(head, spec.length)
    runtime = runtime_of(spec.kind, spec.session.runtime)
    unfit = why_plan_unfit(header, runtime, version=None, gpu_sm=None)
    if unfit is not None:
        raise EngineError(ReasonCode.PLAN_MISMATCH, unfit)


def _answer_until_closed(
    channel: socket.socket, engine: Engine, ring: Ring, start: hop.Start
) -> None:
    names = [spec.name for spec in start.spec.io.outputs]
    closed = threading.Event()

    def answer_runs() -> None:
        buffer = bytearray(hop.MAX_RUN_BYTES)
        with contextlib.suppress(OSError):  # the server closed the socket: an end, not an error
            while size := channel.recv_into(buffer):
                channel.send(answer_run(bytes(buffer[:size]), engine, ring, names))
        closed.set()

    for index in range(start.spec.session.parallel_runs):
        threading.Thread(target=answer_runs, name=f"run-{index}", daemon=True).start()
    while not closed.wait(start.heartbeat_s):
        with contextlib.suppress(OSError):
            channel.send(hop.BEAT)


def answer_run(frame: bytes, engine: Engine, ring: Ring, names: Sequence[str]) -> bytes:
    """Do one run and return the frame that answers it."""
    run = hop.unpack_run(frame)
    try:
        inputs = ring.inputs(run)
        wanted = [name for index, name in enumerate(names) if run.wanted >> index & 1]
        start_ns = time.monotonic_ns()
        outputs = engine.run(inputs, wanted)
        compute_ns = time.monotonic_ns() - start_ns
        shapes = ring.write(run.slot, outputs)
    except EngineLostError as error:
        # the server answers what was in flight and starts a new process, as after any crash
        sys.stderr.write(f"stoker-engine: {error.detail}\n")
        os._exit(EXIT_LOST)
    except EngineError as error:
        return hop.pack_failure(run.run_id, hop.Refusal(code=error.code, detail=error.detail))
    except MemoryError:
        detail = "the run needs more memory than the engine is allowed"
        return hop.pack_failure(run.run_id, hop.Refusal(code=ReasonCode.MEMORY, detail=detail))
    return hop.pack_answer(hop.Answer(run.run_id, start_ns, compute_ns, shapes))


if __name__ == "__main__":
    sys.exit(main())
