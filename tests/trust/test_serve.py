"""The development server of a repository: ranges that resume, and no way out of the folder."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

import pytest

from stoker_trust.serve import make_server, parse_range

CONTENT = bytes(range(256)) * 1000


@contextmanager
def serving(folder: Path, rate: int | None = None) -> Iterator[HTTPConnection]:
    server = make_server(folder, "127.0.0.1", 0, rate_limit_bytes_per_s=rate)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), name="repository")
    thread.start()
    connection = HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    try:
        yield connection
    finally:
        connection.close()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "repository" / "targets" / "digits" / "file.onnx"
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    (tmp_path / "secret").write_text("secret", encoding="utf-8")
    (tmp_path / "repository" / "notes.txt").write_text("no", encoding="utf-8")
    return tmp_path / "repository"


def get(
    connection: HTTPConnection, path: str, method: str = "GET", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    connection.request(method, path, headers={k.replace("_", "-"): v for k, v in headers.items()})
    response = connection.getresponse()
    return response.status, {k.lower(): v for k, v in response.headers.items()}, response.read()


FILE = "/targets/digits/file.onnx"


def test_a_download_that_was_cut_resumes_where_it_stopped(folder: Path) -> None:
    """The second half by range, with the first half's ETag, makes the whole file."""
    with serving(folder) as connection:
        status, headers, _ = get(connection, FILE, "HEAD")
        assert (status, headers["content-length"]) == (200, str(len(CONTENT)))

        status, rest, body = get(connection, FILE, Range="bytes=100000-", If_Range=headers["etag"])

    assert status == 206
    assert rest["content-range"] == f"bytes 100000-{len(CONTENT) - 1}/{len(CONTENT)}"
    assert CONTENT[:100000] + body == CONTENT


def test_a_range_of_a_file_that_changed_is_the_whole_new_file(folder: Path) -> None:
    """With another ETag in If-Range the answer is 200 and everything."""
    with serving(folder) as connection:
        status, _, body = get(connection, FILE, Range="bytes=100000-", If_Range='"other"')

    assert (status, body) == (200, CONTENT)


@pytest.mark.parametrize("header", ["bytes=256000-", "bytes=9-3", "bytes=-0", "bytes=999999-"])
def test_a_range_outside_of_the_file_is_416(folder: Path, header: str) -> None:
    """A range that can not be satisfied says how long the file is."""
    with serving(folder) as connection:
        status, headers, _ = get(connection, FILE, Range=header)

    assert (status, headers["content-range"]) == (416, f"bytes */{len(CONTENT)}")


@pytest.mark.parametrize(
    ("header", "span"),
    [
        (None, None),
        ("bytes=0-", (0, 10)),
        ("bytes=2-4", (2, 5)),
        ("bytes=2-99", (2, 10)),
        ("bytes=-3", (7, 10)),
        ("bytes=-99", (0, 10)),
        ("bytes=0-1,4-5", None),
        ("bytes=-", None),
        ("lines=1-2", None),
    ],
)
def test_ranges_are_read_as_http_says(header: str | None, span: tuple[int, int] | None) -> None:
    """Open, closed and suffix ranges; what is not one range is ignored."""
    assert parse_range(header, 10) == span


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/targets",
        "/../secret",
        "/targets/../../secret",
        "/targets/%2e%2e/%2e%2e/secret",
        "/targets/..%2f..%2fsecret",
        "//etc/passwd",
        "/targets//etc/passwd",
        "/notes.txt",
        "/targets/digits/.file.onnx.part",
        "/targets/%00",
        "/targets/link",
    ],
)
def test_nothing_but_the_repository_is_served(folder: Path, path: str) -> None:
    """Neither dots, nor absolute paths, nor links lead out of the folder."""
    (folder / "targets" / "link").symlink_to(folder.parent / "secret")
    with serving(folder) as connection:
        status, _, body = get(connection, path)

    assert status == 404
    assert b"secret" not in body


def test_a_slow_server_still_sends_every_byte(folder: Path) -> None:
    """A rate limit changes when bytes arrive, not which."""
    with serving(folder, rate=2_000_000) as connection:
        assert get(connection, FILE)[2] == CONTENT
