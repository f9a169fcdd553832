"""``stoker builds`` and ``stoker worker``, as somebody types them."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from stoker_builder.workers.client import ServiceClient
from stoker_builder.workers.documents import JobOutcome
from stoker_builder.workers.states import JobState
from stoker_builder.workers.worker import Worker
from stoker_cli.broker.ports import free_port
from stoker_cli.main import run
from support import stand_in_compiler
from support.build_jobs import ONNX, ORIN, THOR, job, keep, worker
from support.build_service import TOKEN, Service
from support.waiting import wait_until


@pytest.fixture
def options(service: Service, tmp_path: Path) -> list[str]:
    """Which service, and its token."""
    (tmp_path / "token").write_text(TOKEN)
    return ["--builds", service.url, "--token-file", str(tmp_path / "token")]


def test_jobs_and_workers_are_listed(
    service: Service, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Who waits for what, whether anybody could build it, and what became of the rest."""
    store = service.store
    keep(store, ONNX)
    store.hear(worker("orin-1", module="orin-nano-8gb", power_mode="MAXN"))
    store.submit(job(hardware_class=THOR))
    grant = store.take(store.submit(job()).id, worker("orin-1", module="orin-nano-8gb"))
    assert grant is not None
    store.finish(grant.id, grant.number, JobOutcome(code="COMPILE", detail="no\x1b[2J kernel"))

    assert run(["builds", "list", *options]) == 0

    out = capsys.readouterr().out
    assert f"waiting    {THOR}" in out
    assert "for a worker of its class (none seen)" in out
    assert f"failed     {ORIN}" in out
    assert "COMPILE: no\N{REPLACEMENT CHARACTER}[2J kernel" in out
    assert "orin-nano-8gb, L4T 36.4.3, TensorRT 10.3.0" in out
    assert "\x1b" not in out

    assert run(["builds", "list", "--json", *options]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [view["state"] for view in listed["jobs"]] == ["failed", "waiting"]
    assert [view["worker"]["name"] for view in listed["workers"]] == ["orin-1"]


def test_a_job_is_cancelled_by_its_id(
    service: Service, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """And an id that there is not is an error with its code."""
    keep(service.store, ONNX)
    waiting = service.store.submit(job())
    assert run(["builds", "cancel", waiting.id, *options]) == 0
    assert "is cancelled" in capsys.readouterr().out
    assert run(["builds", "cancel", "0" * 32, *options]) == 1
    assert "error JOB_STATE" in capsys.readouterr().err


def test_a_worker_describes_its_board(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a broker or a service: for a look at what it would build for."""
    assert run(["worker", "--describe", "--name", "desk", "--class", "rtx-sm89"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["name"], told["classes"]) == ("desk", ["rtx-sm89"])
    assert told["software"]["arch"] == os.uname().machine
    assert told["python"] == ".".join(map(str, sys.version_info[:3]))


def test_a_token_is_not_shown_to_a_network(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Beyond the loopback there is TLS or nothing."""
    token = str(tmp_path / "token")
    folder = str(tmp_path / "builds")
    common = ["builds", "serve", "--token-file", token, "--folder", folder, "--port", "0"]
    assert run([*common, "--host", "0.0.0.0"]) == 1  # noqa: S104  refused
    assert "--certificate" in capsys.readouterr().err
    assert run([*common, "--certificate", "x.pem"]) == 1
    assert "--key" in capsys.readouterr().err


@pytest.mark.parametrize("url", ["nonsense://x", "redis://127.0.0.1:port/0"])
def test_a_broker_that_is_none_is_refused_at_once(
    options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], url: str
) -> None:
    """Neither a service that wakes nobody, nor a worker that hears nothing."""
    serve = ["builds", "serve", *options[2:], "--folder", str(tmp_path / "jobs"), "--port", "0"]
    for command in (serve, ["worker", "--class", "rtx-sm89", *options]):
        assert run([*command, "--broker", url]) == 1
        assert "no URL of a broker" in capsys.readouterr().err
    assert not (tmp_path / "jobs").exists()


@contextmanager
def serving(folder: Path, port: int = 0) -> Iterator["subprocess.Popen[str]"]:
    """``stoker builds serve`` with a broker that is not there."""
    command = [sys.executable, "-m", "stoker_cli.main", "builds", "serve", "--port", str(port)]
    command += ["--broker", "redis://127.0.0.1:9/0", "--token-file", str(folder / "token")]
    process = subprocess.Popen(
        [*command, "--folder", str(folder / "jobs")],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def client_of(process: "subprocess.Popen[str]", folder: Path) -> ServiceClient:
    """Somebody who talks to it, once it says where it is."""
    assert process.stdout is not None
    lines = iter(process.stdout.readline, "")
    url = next(line.split()[-1] for line in lines if line.startswith("Serving"))
    return ServiceClient(url, (folder / "token").read_text().strip())


def test_a_service_runs_without_its_broker_and_ends_in_order(tmp_path: Path) -> None:
    """It makes a token that only its owner reads, takes jobs, and keeps them until one is there."""
    with serving(tmp_path) as process:
        client = client_of(process, tmp_path)
        assert (tmp_path / "token").stat().st_mode & 0o077 == 0
        (tmp_path / "x.onnx").write_bytes(ONNX)
        client.put(tmp_path / "x.onnx")
        waiting = client.submit(job())

        process.send_signal(signal.SIGTERM)

        wait_until(lambda: process.poll() is not None, 20.0, "the service ends")
        assert process.returncode == 0
    assert waiting.state == "waiting"


def test_what_was_built_while_the_service_was_away_is_not_lost(tmp_path: Path) -> None:
    """Killed and started again while a worker compiles: the plan arrives, at the first attempt."""
    graph, port = f"await {tmp_path}".encode(), free_port()
    compiler = (sys.executable, stand_in_compiler.__file__)
    (tmp_path / "x.onnx").write_bytes(graph)
    with ThreadPoolExecutor(1) as pool, capture_logs() as said:
        with serving(tmp_path, port) as process:
            client = client_of(process, tmp_path)
            client.put(tmp_path / "x.onnx")
            asked = client.submit(job(graph))
            work = pool.submit(Worker(client, worker(), compiler=compiler).work, asked.id)
            wait_until((tmp_path / "here").exists, 30.0, "the compiler is at it")
        (tmp_path / "go").touch()
        wait_until(lambda: "worker.says_it_again" in {one["event"] for one in said}, 30.0)
        with serving(tmp_path, port) as process:
            client = client_of(process, tmp_path)
            work.result(timeout=60.0)
            ended = client.view(asked.id)

    assert (ended.state, ended.attempts) == (JobState.DONE, 1)


def test_what_is_missing_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A token that is not there, and one that is none."""
    options = ["--token-file", str(tmp_path / "token")]
    assert run(["builds", "list", *options]) == 1
    assert "the token can not be read" in capsys.readouterr().err
    (tmp_path / "token").write_text("\n")
    assert run(["builds", "list", *options]) == 1
    assert "has no token in it" in capsys.readouterr().err
