"""The build service over real sockets: bytes are checked on both sides, and nobody is let in."""

import http.client
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from stoker_builder.errors import BuildCode, BuildError
from stoker_builder.workers.client import ServiceClient
from stoker_builder.workers.service import Tls
from stoker_builder.workers.states import JobState
from stoker_builder.workers.store import JobStore
from support.build_jobs import ONNX, PLAN, blob, job, keep, success, worker
from support.build_service import TOKEN, Service, running_service
from support.mosquitto import CertificateFiles, make_certificates
from support.small_disk import SmallDisk, mounted_small_disk


def written(folder: Path, data: bytes) -> Path:
    path = folder / f"{blob(data).digest[:8]}.bin"
    path.write_bytes(data)
    return path


def refusal_of(code: BuildCode, error: pytest.ExceptionInfo[BuildError]) -> str:
    assert error.value.code is code
    assert error.value.hint
    return error.value.detail


def asked(service: Service, method: str, path: str, body: bytes = b"", **headers: str) -> int:
    """The status of an answer to something that no client of ours says."""
    connection = http.client.HTTPConnection("127.0.0.1", urlsplit(service.url).port or 0)
    try:
        headers = {"Authorization": f"Bearer {TOKEN}", **headers}
        connection.request(method, path, body, headers)
        return connection.getresponse().status
    finally:
        connection.close()


def test_a_job_goes_from_hand_to_hand(service: Service, tmp_path: Path) -> None:
    """Submitted here, built there, and what comes back is what was built."""
    client = service.client()
    client.put(written(tmp_path, ONNX))
    waiting = client.submit(job())

    at_work = service.client()
    at_work.hear(worker())
    grant = at_work.take(waiting.id, worker())
    assert grant is not None
    at_work.get(grant.job.onnx, tmp_path / "there.onnx")
    at_work.renew(grant)
    at_work.put(written(tmp_path, PLAN))
    at_work.finish(grant, success())

    done = client.view(waiting.id)
    assert (done.state, done.workers) == (JobState.DONE, 1)
    assert done.outcome is not None
    assert done.outcome.plan is not None
    client.get(done.outcome.plan, tmp_path / "here.plan")
    assert (tmp_path / "there.onnx").read_bytes() == ONNX
    assert (tmp_path / "here.plan").read_bytes() == PLAN
    assert [view.id for view in client.jobs().jobs] == [waiting.id]
    assert [view.worker.name for view in client.workers().workers] == ["orin-1"]


def test_what_is_known_is_not_sent_again(service: Service, tmp_path: Path) -> None:
    """A graph of gigabytes crosses the network once."""
    path = written(tmp_path, ONNX)
    service.client().put(path)
    kept = service.store.blobs.path(blob(ONNX).digest)
    assert kept is not None
    before = kept.stat().st_mtime_ns
    service.client().put(path)
    assert kept.stat().st_mtime_ns == before


def test_a_worker_is_told_that_there_is_nothing_to_build(service: Service, tmp_path: Path) -> None:
    """What somebody else has certified meanwhile is the answer."""
    client = service.client()
    client.put(written(tmp_path, ONNX))
    client.put(written(tmp_path, PLAN))
    grant = client.take(client.submit(job()).id, worker())
    assert grant is not None
    client.finish(grant, success())
    client.hear(worker("orin-1", tensorrt="10.3.1"))

    assert client.take(client.submit(job()).id, worker("orin-2")) is None


def test_a_wrong_token_gets_nothing(service: Service, tmp_path: Path) -> None:
    """Neither documents nor bytes, in or out."""
    stranger = service.client(token="guessed")  # noqa: S106  a wrong one
    for attempt in (
        stranger.jobs,
        lambda: stranger.hear(worker()),
        lambda: stranger.put(written(tmp_path, ONNX)),
        lambda: stranger.get(blob(ONNX), tmp_path / "x"),
    ):
        with pytest.raises(BuildError) as error:
            attempt()
        refusal_of(BuildCode.BUILD_SERVICE, error)
    assert not service.store.workers()
    assert asked(service, "GET", "/v1/jobs", Authorization="") == http.client.UNAUTHORIZED


def test_damaged_bytes_are_refused_by_the_service(service: Service) -> None:
    """A plan that changed on its way is not kept under the name it had."""
    status = asked(service, "PUT", f"/v1/blobs/{blob(PLAN).digest}", b"a pl4n")
    assert status == http.client.UNPROCESSABLE_ENTITY
    assert not service.store.blobs.has(blob(PLAN))


def test_damaged_bytes_are_refused_by_the_client(service: Service, tmp_path: Path) -> None:
    """A disk that forgets, or a service that lies: nothing is there under the path."""
    service.store.blobs.put(blob(PLAN), [PLAN])
    path = service.store.blobs.path(blob(PLAN).digest)
    assert path is not None
    path.write_bytes(b"a pl4n")

    with pytest.raises(BuildError) as error:
        service.client().get(blob(PLAN), tmp_path / "x.plan")

    assert "not the bytes" in refusal_of(BuildCode.BLOB_DAMAGED, error)
    assert not (tmp_path / "x.plan").exists()


def test_what_a_disk_damaged_is_made_again(service: Service, tmp_path: Path) -> None:
    """Who finds it gets nothing; a graph is then sent again, and a plan is built again."""
    client = service.client()
    client.put(written(tmp_path, ONNX))
    client.put(written(tmp_path, PLAN))
    grant = client.take(client.submit(job()).id, worker())
    assert grant is not None
    client.finish(grant, success())
    for data in (ONNX, PLAN):
        kept = service.store.blobs.path(blob(data).digest)
        assert kept is not None
        kept.write_bytes(b"x" * len(data))
        with pytest.raises(BuildError) as error:
            client.get(blob(data), tmp_path / "x")
        refusal_of(BuildCode.BLOB_DAMAGED, error)

    client.put(written(tmp_path, ONNX))
    client.get(blob(ONNX), tmp_path / "x")

    assert client.submit(job()).state is JobState.WAITING
    with pytest.raises(BuildError) as error:
        client.get(blob(PLAN), tmp_path / "x")
    assert "are not here" in refusal_of(BuildCode.BLOB_DAMAGED, error)


def test_a_full_disk_is_said_and_survived(short_disk: SmallDisk, tmp_path: Path) -> None:
    """Bytes and jobs are refused in words; with room again, the same service takes both."""
    store = JobStore(short_disk.path, time.monotonic)
    keep(store, ONNX)
    with running_service(store) as service:
        short_disk.fill(journal=short_disk.path / "builds.sqlite")
        with pytest.raises(BuildError) as error:
            service.client().put(written(tmp_path, bytes(2**20)))
        assert "No space left" in refusal_of(BuildCode.BUILD_SERVICE, error)
        with pytest.raises(BuildError) as error:
            service.client().submit(job())
        assert "can not be kept: database or disk is full" in error.value.detail

        short_disk.make_room()
        service.client().put(written(tmp_path, bytes(2**20)))
        assert service.client().submit(job()).state is JobState.WAITING
    store.close()


@pytest.fixture
def short_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with mounted_small_disk(tmp_path / "disk", size_mib=8) as disk:
        yield disk


def test_an_upload_that_breaks_off_leaves_nothing(service: Service) -> None:
    """Half a plan is no plan."""
    parts = urlsplit(service.url)
    with socket.create_connection((parts.hostname, parts.port or 0)) as connection:
        head = (
            f"PUT /v1/blobs/{blob(PLAN).digest} HTTP/1.1\r\nHost: x\r\n"
            f"Authorization: Bearer {TOKEN}\r\nContent-Length: {len(PLAN)}\r\n\r\n"
        )
        connection.sendall(head.encode() + PLAN[:3])
        connection.shutdown(socket.SHUT_WR)
        answer = connection.recv(4096)
    assert b" 422 " in answer
    assert not service.store.blobs.has(blob(PLAN))


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/v1/blobs/../builds.sqlite", b""),
        ("GET", f"/v1/blobs/{'0' * 64}", b""),
        ("GET", "/", b""),
        ("POST", "/v1/jobs", b"{}"),
        ("POST", "/v1/jobs", b"\xff" * 70_000),
        ("POST", "/v1/workers", b"[[[["),
        ("POST", f"/v1/jobs/{'0' * 32}/take", worker().encode()),
        ("POST", f"/v1/jobs/{'0' * 32}/burn", b"{}"),
        ("PUT", "/v1/blobs/x", b"x"),
    ],
)
def test_nonsense_is_refused_in_words(
    service: Service, method: str, path: str, body: bytes
) -> None:
    """Whatever comes in, the service answers with a status of its own, and goes on."""
    assert 400 <= asked(service, method, path, body) < 500
    assert service.client().jobs().jobs == ()


@pytest.mark.parametrize("length", ["", "-1", "1" * 5000, "\N{SUPERSCRIPT TWO}"])
def test_a_length_that_is_none_is_refused(service: Service, length: str) -> None:
    """Also one that Python itself would not read."""
    headers = {"Content-Length": length}
    assert asked(service, "POST", "/v1/jobs", b"", **headers) == http.client.BAD_REQUEST


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> CertificateFiles:
    return make_certificates(tmp_path_factory.mktemp("tls"), "x")


@pytest.fixture
def over_tls(tmp_path: Path, certificates: CertificateFiles) -> Iterator[Service]:
    store = JobStore(tmp_path / "builds", time.monotonic)
    tls = Tls(certificates.broker_certificate, certificates.broker_key)
    with running_service(store, tls=tls) as running:
        yield running
    store.close()


def test_bytes_travel_encrypted(
    over_tls: Service, certificates: CertificateFiles, tmp_path: Path
) -> None:
    """Over HTTPS it is the same service, for who trusts its certificate."""
    client = over_tls.client(ca=certificates.ca)
    client.put(written(tmp_path, ONNX))
    assert client.submit(job()).state is JobState.WAITING

    with pytest.raises(BuildError) as error:
        over_tls.client().jobs()
    assert "certificate" in refusal_of(BuildCode.BUILD_SERVICE, error)


def test_a_silent_stranger_stops_nobody(over_tls: Service, certificates: CertificateFiles) -> None:
    """One that connects and never says hello does not keep others out."""
    with socket.create_connection(("127.0.0.1", urlsplit(over_tls.url).port or 0)):
        assert over_tls.client(ca=certificates.ca).jobs().jobs == ()


@pytest.mark.parametrize(
    "url", ["", "builds", "ftp://builds/", "https://", "http://builds.example:80", "https://x:y"]
)
def test_a_token_is_sent_to_services_only(url: str) -> None:
    """Plain HTTP stays on this machine, and what is no URL is no service."""
    with pytest.raises(BuildError) as error:
        ServiceClient(url, TOKEN)
    refusal_of(BuildCode.BUILD_SERVICE, error)


def test_nobody_at_home_is_said_so() -> None:
    """With the URL, and what to look at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(BuildError) as error:
            ServiceClient(url, TOKEN).jobs()
    assert url in refusal_of(BuildCode.BUILD_SERVICE, error)
