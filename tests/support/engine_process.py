"""A real engine worker, spoken to in frames as the server does."""

import mmap
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from stoker_contract import hop
from stoker_contract.engine import EngineSpec

Array = npt.NDArray[Any]

_COMMAND: Final = (sys.executable, "-m", "stoker_engine")


class EngineProcess:
    """One worker on the other end of a socket pair."""

    def __init__(
        self, spec: EngineSpec, data: bytes | None = None, command: Sequence[str] = _COMMAND
    ) -> None:
        self.spec = spec
        self.layout = hop.ring_layout(spec.io, spec.session.parallel_runs * 2)
        self._data = Path(spec.path).read_bytes() if data is None else data
        self._command = command
        self._options: dict[str, int] = {}

    def having(self, **options: int) -> Self:
        """Set further fields of the start frame."""
        self._options = options
        return self

    def __enter__(self) -> Self:
        size = self.layout.slots * self.layout.slot_bytes
        artifact_fd, ring_fd = os.memfd_create("artifact"), os.memfd_create("ring")
        os.write(artifact_fd, self._data)
        os.ftruncate(ring_fd, size)
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.channel.settimeout(60)
        self.process = subprocess.Popen(
            [*self._command, "--fd", str(theirs.fileno())],
            pass_fds=(theirs.fileno(), artifact_fd, ring_fd),
        )
        theirs.close()
        self._memory = mmap.mmap(ring_fd, size)
        start = hop.Start(
            spec=self.spec,
            artifact_fd=artifact_fd,
            ring_fd=ring_fd,
            ring=self.layout,
            heartbeat_s=0.05,
            **self._options,
        )
        self.channel.send(hop.START + start.encode())
        os.close(artifact_fd)
        os.close(ring_fd)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.channel.close()
        self.process.kill()
        self.process.wait()

    def receive(self) -> bytes:
        """The next frame that is not a heartbeat; empty at the end."""
        while True:
            frame = self.channel.recv(hop.MAX_FRAME_BYTES)
            if frame[:1] != hop.BEAT:
                return frame

    def handshake(self) -> hop.Handshake:
        """The handshake, which must come now."""
        frame = self.receive()
        assert frame[:1] == hop.HANDSHAKE, frame
        return hop.Handshake.parse(frame[1:])

    def refusal(self) -> hop.Refusal:
        """The refusal, which must come now."""
        frame = self.receive()
        assert frame[:1] == hop.REFUSAL, frame
        return hop.Refusal.parse(frame[1:])

    def send_run(
        self, run_id: int, inputs: Sequence[Array], slot: int = 0, wanted: int = 1
    ) -> None:
        """Write inputs into the ring and ask for a run."""
        places = hop.offsets([array.nbytes for array in inputs], slot * self.layout.slot_bytes)
        for array, place in zip(inputs, places, strict=True):
            self._memory[place : place + array.nbytes] = array.tobytes()
        shapes = tuple(array.shape for array in inputs)
        self.channel.send(hop.pack_run(hop.Run(run_id, slot, wanted, shapes)))

    def output(self, slot: int = 0) -> Array:
        """The first output of a slot whose run was answered."""
        answer = hop.unpack_answer(self.receive())
        base = slot * self.layout.slot_bytes + self.layout.input_bytes
        dtype = np.dtype(hop.NUMPY_NAME[self.spec.io.outputs[0].dtype])
        size = hop.tensor_bytes(self.spec.io.outputs[0].dtype, answer.shapes[0])
        return np.frombuffer(self._memory[base : base + size], dtype).reshape(answer.shapes[0])
