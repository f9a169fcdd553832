"""The server's side of one engine process: runs go in, answers come out, misbehaviour ends it.

Everything happens on the event loop's thread. A run takes a slot of the ring and keeps it until
the process answers, even when the caller has stopped waiting.
"""

import asyncio
import mmap
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from stoker_contract import hop
from stoker_contract.codes import ReasonCode
from stoker_contract.engine import EngineSpec
from stoker_contract.errors import ContractError
from stoker_server import launch
from stoker_server.errors import ServeError
from stoker_server.settings import Settings

_WATCH_S: Final = 0.25
_FRAMES_PER_WAKE: Final = 64
_REAP_S: Final = 10.0

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Call:
    """The inputs of one run, in the order of the engine's io, and the outputs wanted."""

    buffers: Sequence[Buffer]
    shapes: tuple[hop.Shape, ...]
    wanted: int


@dataclass(frozen=True, slots=True)
class Outputs:
    """What a run gave: wanted outputs in the order of io, and when it computed."""

    buffers: tuple[bytes, ...]
    shapes: tuple[hop.Shape, ...]
    start_ns: int
    compute_ns: int


@dataclass(slots=True)
class _Pending:
    future: asyncio.Future[Outputs]
    slot: int
    wanted: int
    since_s: float


class Worker:
    """One engine process.

    Attributes:
        ended: resolves to why the process ended, once it has been reaped.
    """

    def __init__(self, spec: EngineSpec, settings: Settings, started: launch.Started) -> None:
        self.spec = spec
        self._settings = settings
        self._process = started.process
        self._channel = started.channel
        self._layout = started.layout
        self._memory = mmap.mmap(started.ring_fd, started.layout.slots * started.layout.slot_bytes)
        os.close(started.ring_fd)
        self._ring = memoryview(self._memory)
        self._frame = bytearray(hop.MAX_FRAME_BYTES)
        self._loop = asyncio.get_running_loop()
        self._handshake: asyncio.Future[hop.Handshake] = self._loop.create_future()
        self.ended: asyncio.Future[ServeError] = self._loop.create_future()
        self._free = list(range(started.layout.slots))
        self._waiters: deque[asyncio.Future[int]] = deque()
        self._pending: dict[int, _Pending] = {}
        self._run_id = 0
        self._heard_s = time.monotonic()
        self._verdict: ServeError | None = None
        self._burial: asyncio.Task[None] | None = None
        self._loop.add_reader(self._channel.fileno(), self._readable)
        self._watch = self._loop.call_later(_WATCH_S, self._look)

    @classmethod
    async def start(cls, spec: EngineSpec, settings: Settings, how: launch.Launch) -> "Worker":
        """Start a process and wait for its handshake.

        Raises:
            ServeError: why it does not serve; the process is gone then.
        """
        artifact_fd = await _copied(spec)
        try:
            process = launch.start_process(spec, settings, how, artifact_fd)
        except OSError as error:  # out of files or memory: one engine less, not one server less
            detail = f"the engine process can not be started: {error}"
            raise ServeError(ReasonCode.LOAD_ERROR, detail) from None
        worker = cls(spec, settings, process)
        try:
            async with asyncio.timeout(how.timeout_s):
                await worker._shaken()
        except TimeoutError:
            detail = f"the engine was not loaded after {how.timeout_s:g} s"
            await worker.close(ServeError(ReasonCode.LOAD_TIMEOUT, detail))
            raise ServeError(ReasonCode.LOAD_TIMEOUT, detail) from None
        except BaseException:
            await worker.close()
            raise
        return worker

    async def _shaken(self) -> None:
        await asyncio.wait((self._handshake, self.ended), return_when=asyncio.FIRST_COMPLETED)
        if not self._handshake.done():
            error = self.ended.result()
            crashed = error.code is ReasonCode.ENGINE_CRASHED
            raise ServeError(
                ReasonCode.LOAD_ERROR if crashed else error.code, f"while loading: {error.detail}"
            )
        if self._handshake.result().digest != self.spec.digest:
            detail = f"the worker loaded {self._handshake.result().digest}"
            raise ServeError(ReasonCode.DIGEST_MISMATCH, detail)

    @property
    def handshake(self) -> hop.Handshake:
        """The worker's own words about what it loaded."""
        return self._handshake.result()

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether runs can be given to it."""
        return self._burial is None

    async def run(self, call: Call) -> Outputs:
        """Run once.

        Raises:
            ServeError: ``ENGINE_CRASHED`` or ``RUN_TIMEOUT`` when the process went, else what
                the engine said about the inputs.
        """
        slot = await self._take_slot()
        base = slot * self._layout.slot_bytes
        places = hop.offsets([len(buffer) for buffer in call.buffers], base)
        for buffer, place in zip(call.buffers, places, strict=True):
            self._ring[place : place + len(buffer)] = buffer
        self._run_id += 1
        frame = hop.pack_run(hop.Run(self._run_id, slot, call.wanted, call.shapes))
        future: asyncio.Future[Outputs] = self._loop.create_future()
        self._pending[self._run_id] = _Pending(future, slot, call.wanted, time.monotonic())
        try:
            self._channel.send(frame)
        except OSError as error:
            self._end(ServeError(ReasonCode.ENGINE_CRASHED, f"the worker hears nothing: {error}"))
        return await future

    async def close(self, verdict: ServeError | None = None) -> None:
        """Kill the process and wait until it is reaped. May be called again."""
        self._end(verdict or ServeError(ReasonCode.ENGINE_CRASHED, "the engine was closed"))
        await asyncio.wait((self.ended,))

    def notify_end(self, tell: Callable[[ServeError], None]) -> None:
        """Have somebody told when the process has ended."""
        self.ended.add_done_callback(lambda future: tell(future.result()))

    async def _take_slot(self) -> int:
        if not self.alive:
            raise ServeError(ReasonCode.ENGINE_CRASHED, "the engine has ended")
        if self._free:
            return self._free.pop()
        waiter: asyncio.Future[int] = self._loop.create_future()
        self._waiters.append(waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            # Given and cancelled in the same turn of the loop: pass the slot on.
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self._give_slot(waiter.result())
            raise

    def _give_slot(self, slot: int) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(slot)
                return
        self._free.append(slot)

    def _readable(self) -> None:
        for _ in range(_FRAMES_PER_WAKE):
            try:
                size = self._channel.recv_into(self._frame)
            except BlockingIOError:
                return
            except OSError:
                size = 0
            if size == 0:
                self._end(None)
                return
            self._heard_s = time.monotonic()
            try:
                self._take_frame(bytes(self._frame[:size]))
            except (ContractError, ValueError) as error:
                self._end(ServeError(ReasonCode.ENGINE_CRASHED, f"the worker answers: {error}"))
                return

    def _take_frame(self, frame: bytes) -> None:
        kind = frame[:1]
        if kind == hop.ANSWER:
            self._take_answer(hop.unpack_answer(frame))
        elif kind == hop.FAILURE:
            run_id, refusal = hop.unpack_failure(frame)
            pending = self._pending.pop(run_id, None)
            if pending is None:
                raise ContractError(ReasonCode.MALFORMED, "a failure of nothing that was asked")
            self._give_slot(pending.slot)
            if not pending.future.done():
                pending.future.set_exception(ServeError(refusal.code, refusal.detail))
        elif kind == hop.HANDSHAKE and not self._handshake.done():
            self._handshake.set_result(hop.Handshake.parse(frame[1:], max_bytes=len(frame)))
        elif kind == hop.REFUSAL:
            refusal = hop.Refusal.parse(frame[1:])
            self._end(ServeError(refusal.code, refusal.detail))

    def _take_answer(self, answer: hop.Answer) -> None:
        pending = self._pending.pop(answer.run_id, None)
        if pending is None:
            raise ContractError(ReasonCode.MALFORMED, "an answer to nothing that was asked")
        outputs = self._outputs(pending, answer)
        self._give_slot(pending.slot)
        if not pending.future.done():
            pending.future.set_result(outputs)

    def _outputs(self, pending: _Pending, answer: hop.Answer) -> Outputs:
        specs = [s for i, s in enumerate(self.spec.io.outputs) if pending.wanted >> i & 1]
        sizes = [
            hop.tensor_bytes(spec.dtype, shape)
            for spec, shape in zip(specs, answer.shapes, strict=True)
        ]
        base = pending.slot * self._layout.slot_bytes
        places = hop.offsets(sizes, base + self._layout.input_bytes)
        if sizes and places[-1] + sizes[-1] > base + self._layout.slot_bytes:
            raise ContractError(ReasonCode.MALFORMED, "outputs that reach past the ring")
        buffers = tuple(
            bytes(self._ring[place : place + size])
            for place, size in zip(places, sizes, strict=True)
        )
        return Outputs(buffers, answer.shapes, answer.start_ns, answer.compute_ns)

    def _look(self) -> None:
        now_s = time.monotonic()
        oldest = next(iter(self._pending.values()), None)
        run_timeout_s, silence_s = self._settings.run_timeout_s, self._settings.heartbeat_timeout_s
        if oldest is not None and now_s - oldest.since_s > run_timeout_s:
            detail = f"a run took more than {run_timeout_s:g} s"
            self._end(ServeError(ReasonCode.RUN_TIMEOUT, detail))
        elif self._handshake.done() and now_s - self._heard_s > silence_s:
            detail = f"the worker was silent for {silence_s:g} s"
            self._end(ServeError(ReasonCode.ENGINE_CRASHED, detail))
        else:
            self._watch = self._loop.call_later(_WATCH_S, self._look)

    def _end(self, verdict: ServeError | None) -> None:
        """Begin the end: kill, reap in a thread, then tell everybody who waits."""
        if self._burial is not None:
            return
        self._watch.cancel()
        self._loop.remove_reader(self._channel.fileno())
        self._channel.close()
        self._process.kill()
        name = f"worker.bury.{self._process.pid}"
        self._burial = self._loop.create_task(self._bury(verdict), name=name)

    async def _bury(self, verdict: ServeError | None) -> None:
        status = await asyncio.to_thread(self._process.wait)
        error = verdict or ServeError(ReasonCode.ENGINE_CRASHED, _exit_text(status))
        bystander = ServeError(ReasonCode.ENGINE_CRASHED, error.detail)
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_exception(bystander)
        culprit = next(iter(self._pending.values()), None)
        for pending in self._pending.values():
            if not pending.future.done():
                # Only the oldest run took too long; the others may be tried elsewhere.
                pending.future.set_exception(error if pending is culprit else bystander)
        self._waiters.clear()
        self._pending.clear()
        self._ring.release()
        self._memory.close()
        self.ended.set_result(error)


async def _copied(spec: EngineSpec) -> int:
    """The sealed copy. A load that is given up meanwhile leaves none behind."""
    copying = asyncio.ensure_future(asyncio.to_thread(launch.artifact, spec))
    try:
        return await asyncio.shield(copying)
    except asyncio.CancelledError:
        copying.add_done_callback(_close_unwanted)  # a thread can not be stopped
        raise


def _close_unwanted(copying: asyncio.Future[int]) -> None:
    if not copying.cancelled() and copying.exception() is None:
        os.close(copying.result())


def _exit_text(status: int) -> str:
    with suppress(ValueError):
        if status < 0:
            return f"the engine was killed by {signal.Signals(-status).name}"
    return f"the engine exited with status {status}"
