"""All of building elsewhere on one machine: a broker, the service, and worker processes."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from stoker_builder.workers.dispatch import Dispatcher
from stoker_builder.workers.documents import Blob, BuildJob, JobView
from stoker_builder.workers.queues import TASK, CeleryWaker, make_app, queue_of
from stoker_builder.workers.states import FINAL
from stoker_builder.workers.store import JobStore
from support.build_jobs import blob, job
from support.build_service import Service, running_service
from support.environments import ROOT
from support.redis_server import Redis, running_redis
from support.waiting import wait_until

LEASE_S = 4.0  # more than a busy machine holds its breath
PATHS = ("contract", "agent", "builder", "tests")


@dataclass
class WorkerProcess:
    """A worker, and the end of it."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def kill(self) -> None:
        """End it without notice, as a power cut would."""
        self.process.kill()
        self.process.wait(timeout=10)


@dataclass
class Site:
    """Where jobs are submitted, and workers started."""

    folder: Path
    redis: Redis
    service: Service
    _workers: list[WorkerProcess] = field(default_factory=list)

    def start(
        self,
        name: str,
        *classes: str,
        python: str = sys.executable,
        stand_in: bool = True,
        visibility_s: float = 3600.0,
        root: Path = Path("/"),
    ) -> WorkerProcess:
        """Start a worker; it ends with the site. Its system is what is under ``root``."""
        named = [word for one in classes for word in ("--class", one)]
        options = ["--broker", self.redis.url, "--builds", self.service.url, "--name", name]
        options += [*named, *(["--stand-in"] if stand_in else [])]
        options += ["--visibility-s", f"{visibility_s}", "--root", str(root)]
        log = self.folder / f"{name}.log"
        with log.open("wb") as stream:
            process = subprocess.Popen(
                [
                    python,
                    "-m",
                    "support.build_worker",
                    *options,
                    "--visibility-s",
                    f"{visibility_s}",
                ],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(str(ROOT / p) for p in PATHS)},
                stdout=stream,
                stderr=stream,
            )
        worker = WorkerProcess(name, process, log)
        self._workers.append(worker)
        return worker

    def end(self) -> None:
        """End all workers."""
        for worker in self._workers:
            worker.kill()

    def is_here(self, name: str) -> bool:
        """Whether a worker has announced itself."""
        heard = self.service.store.workers()
        return any(view.worker.name == name and view.silent_s < 60.0 for view in heard)

    def await_workers(self, *names: str) -> None:
        """Wait until they listen."""
        what = f"{', '.join(names)} listen"
        wait_until(lambda: all(self.is_here(name) for name in names), 30.0, what)

    def submit(self, graph: str, hardware_class: str, **more: object) -> JobView:
        """Ask for a plan of a graph that the stand-in understands."""
        return self.submit_job(graph.encode(), job(graph.encode(), hardware_class, **more))

    def submit_job(self, onnx: bytes, wanted: BuildJob) -> JobView:
        """Ask for any job."""
        path = self.folder / f"{blob(onnx).digest[:12]}.onnx"
        path.write_bytes(onnx)
        self.service.client().put(path)
        return self.service.client().submit(wanted)

    def submit_known(self, onnx: Blob, hardware_class: str) -> JobView:
        """Ask for a plan of what the service says it has."""
        wanted = job(hardware_class=hardware_class).model_copy(update={"onnx": onnx})
        return self.service.client().submit(wanted)

    def say_nonsense(self, hardware_class: str) -> None:
        """Put things into a queue that nobody of ours would send."""
        queue = {"queue": queue_of(hardware_class)}
        nonsense: tuple[object, ...] = ("../../etc", 17, {"a": []}, "0" * 32)
        app = make_app(self.redis.url)
        for argument in nonsense:
            app.send_task(TASK, args=[argument], **queue)
        app.send_task(TASK, args=[1, 2, 3], kwargs={"x": 1}, **queue)
        app.send_task("os.system", args=["true"], **queue)
        app.send_task(TASK, args=["0" * 32], serializer="pickle", **queue)

    def view(self, one: JobView) -> JobView:
        """How it stands now."""
        return self.service.client().view(one.id)

    def ended(self, one: JobView, timeout_s: float = 30.0) -> JobView:
        """How it stands when all is over."""
        wait_until(lambda: self.view(one).state in FINAL, timeout_s, f"{one.id} ends")
        return self.view(one)


@contextmanager
def running_site(folder: Path) -> Iterator[Site]:
    """A broker and a service, until the block ends."""
    store = JobStore(folder / "builds", time.monotonic, lease_s=LEASE_S, wake_again_s=2.0)
    with ExitStack() as stack:
        redis = stack.enter_context(running_redis(folder / "redis"))
        dispatcher = Dispatcher(store, CeleryWaker(make_app(redis.url)), every_s=0.1)
        dispatcher.start()
        stack.callback(store.close)
        stack.callback(dispatcher.stop)
        service = stack.enter_context(running_service(store, on_change=dispatcher.nudge))
        site = Site(folder, redis, service)
        stack.callback(site.end)
        yield site
