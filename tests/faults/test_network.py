"""A server that drips, never ends, lies and bombs: each request ends in time, within memory, with an error of ours."""

from __future__ import annotations

import gzip
import io
import os
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from PIL import Image

import biaskit
from biaskit.errors import ImageSkipped, SourceError
from biaskit.images.coco_files import fetch_annotations
from biaskit.images.coco_stores import CocoImage, UrlStore
from biaskit.images.download import Downloader

SECONDS = 1.0
Answer = Callable[[socket.socket], None]


def picture() -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((40, 30), 90).convert("RGB").save(buffer, "JPEG")
    return buffer.getvalue()


WHOLE = picture()


def head(status: str = "200 OK", **headers: object) -> bytes:
    lines = [f"HTTP/1.1 {status}", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin1")


def drip(first: bytes, drop: bytes = b"x") -> Answer:
    """A byte now and then: no packet is late, and the whole never comes."""

    def answer(connection: socket.socket) -> None:
        connection.sendall(first)
        while True:
            connection.sendall(drop)
            time.sleep(0.05)

    return answer


def send(*parts: bytes) -> Answer:
    def answer(connection: socket.socket) -> None:
        for part in parts:
            connection.sendall(part)

    return answer


def endless(first: bytes, block: bytes) -> Answer:
    def answer(connection: socket.socket) -> None:
        connection.sendall(first)
        while True:
            connection.sendall(block)

    return answer


def silent(connection: socket.socket) -> None:
    time.sleep(30)


ZEROS = gzip.compress(bytes(64 << 20), 9)
NESTED = zlib.compress(bytes(256 << 20), 9)

FAULTS: dict[str, Answer] = {
    "drips its status line": drip(b"HTTP/1.1 200"),
    "drips a header": drip(b"HTTP/1.1 200 OK\r\nX-A: "),
    "drips headers": drip(b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n"),
    "drips the body": drip(head(Content_Length=len(WHOLE) + 10**6) + WHOLE),
    "drips a body without length": drip(head() + WHOLE),
    "drips a chunk": drip(head(Transfer_Encoding="chunked") + b"fffff\r\n"),
    "drips the size of a chunk": drip(head(Transfer_Encoding="chunked"), b"0"),
    "says nothing": silent,
    "never ends": endless(head(), b"x" * 65536),
    "never ends its chunks": endless(head(Transfer_Encoding="chunked"), b"1000\r\n" + b"x" * 4096 + b"\r\n"),
    "never ends its headers": endless(b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n"),
    "never ends a line": endless(b"HTTP/1.1 ", b"x" * 4096),
    "says it is huge": send(head(Content_Length=6 << 30), WHOLE),
    "says it has no end": send(head(Content_Length="9" * 50), WHOLE),
    "gzip bomb": send(head(Content_Encoding="gzip", Content_Length=len(ZEROS)), ZEROS),
    "deflate bomb": send(head(Content_Encoding="deflate", Content_Length=len(NESTED)), NESTED),
    "cut gzip": send(head(Content_Encoding="gzip"), gzip.compress(WHOLE)[:-20]),
    "no gzip": send(head(Content_Encoding="gzip"), WHOLE),
    "unknown encoding": send(head(Content_Encoding="br"), WHOLE),
    "cut short": send(head(Content_Length=len(WHOLE)), WHOLE[: len(WHOLE) // 2]),
    "cut chunk": send(head(Transfer_Encoding="chunked"), b"ffff\r\nabc"),
    "no chunk": send(head(Transfer_Encoding="chunked"), b"zz\r\nabc\r\n"),
    "hangs up": send(),
    "no HTTP": send(b"\x00\x01\x02SSH-2.0\r\n\r\n"),
    "another protocol": send(b"HTTP/9.9 abc def\r\n\r\n"),
    "404": send(head("404 Not Found", Content_Length=0)),
    "500": send(head("500 Oops", Content_Length=0)),
    "204": send(head("204 No Content")),
    "HTML": send(head(Content_Type="image/jpeg", Content_Length=15), b"<!DOCTYPE html>"),
    "another picture": send(head(Content_Length=len(WHOLE) - 4), WHOLE[:-4]),
    "redirect to garbage": send(head("302 Found", Location="http://[::1", Content_Length=0)),
    "redirect to a bad port": send(head("302 Found", Location="http://127.0.0.1:99999/", Content_Length=0)),
    "redirect to a bad host": send(head("302 Found", Location=f"http://{'a' * 70}.example/", Content_Length=0)),
    "redirect to spaces": send(head("302 Found", Location="http://a b/\x7f", Content_Length=0)),
    "redirect to a file": send(head("302 Found", Location="file:///etc/passwd", Content_Length=0)),
    "redirect to itself": send(head("302 Found", Location="/x", Content_Length=0)),
    "waits for an hour": send(head("503 Busy", Retry_After=3600, Content_Length=0)),
    "waits for nonsense": send(head("503 Busy", Retry_After="soon", Content_Length=0)),
}


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Answer], str]]:
    """Start a server that gives one answer to everything, and return its address."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    open_: list[socket.socket] = []

    def start(answer: Answer) -> str:
        listening = socket.create_server(("127.0.0.1", 0))
        open_.append(listening)

        def one(connection: socket.socket) -> None:
            with suppress(OSError), connection:
                connection.recv(65536)
                answer(connection)

        def loop() -> None:
            with suppress(OSError):
                while True:
                    connection = listening.accept()[0]
                    open_.append(connection)
                    threading.Thread(target=one, args=(connection,), daemon=True).start()

        threading.Thread(target=loop, daemon=True).start()
        return f"http://127.0.0.1:{listening.getsockname()[1]}"

    yield start
    for one in open_:
        with suppress(OSError):
            one.close()


def quick() -> Downloader:
    return Downloader(retries=1, backoff=0.001, timeout=0.5, deadline=SECONDS)


@pytest.mark.parametrize("fault", FAULTS)
def test_an_image(fault, serve, tmp_path, counted):
    url = serve(FAULTS[fault]) + "/v/a.jpg"
    store = UrlStore(tmp_path / "cache", quick())
    tracemalloc.start()
    begun = time.monotonic()
    with pytest.raises((ImageSkipped, SourceError)) as caught:
        store.read(CocoImage(1, "a.jpg", 40, 30, url))
    took, peak = time.monotonic() - begun, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert caught.value.message and caught.value.hint
    assert took < SECONDS + 1.5
    assert peak < 20e6
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    counted("faults of a server of images", 1)


@pytest.mark.parametrize("fault", [*FAULTS, "lies about its size", "lies about a part"])
def test_the_annotation_zip(fault, serve, tmp_path, counted, monkeypatch):
    lies = {
        "lies about its size": send(head("206 Partial Content", Content_Range=f"bytes 0-0/{1 << 40}", Content_Length=1), b"x"),
        "lies about a part": send(head("206 Partial Content", Content_Range="bytes 0-0/5000", Content_Length=5000), b"PK\5\6" * 1250),
    }
    monkeypatch.setattr(Downloader.save, "__defaults__", (1 << 20, SECONDS))
    url = serve({**FAULTS, **lies}[fault])
    begun = time.monotonic()
    with pytest.raises(SourceError) as caught:
        fetch_annotations("val2017", tmp_path / "cache", url, quick())
    assert caught.value.hint
    assert time.monotonic() - begun < 2 * SECONDS + 2
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    counted("faults of a server of annotations", 1)


@pytest.mark.parametrize("encoding", ["identity", "gzip", "deflate"])
def test_a_sound_answer_is_read(encoding, serve, tmp_path):
    """In every encoding, with a length, in chunks, and until the connection ends; also slowly, and after a redirect."""
    packed = {"identity": WHOLE, "gzip": gzip.compress(WHOLE), "deflate": zlib.compress(WHOLE)}[encoding]
    chunks = b"".join(f"{len(packed[k : k + 100]):x}\r\n".encode() + packed[k : k + 100] + b"\r\n" for k in range(0, len(packed), 100))
    for answer in (
        send(head(Content_Encoding=encoding, Content_Length=len(packed)), packed),
        send(head(Content_Encoding=encoding), packed),
        send(head(Content_Encoding=encoding, Content_Length="-5"), packed),
        send(head(Content_Encoding=encoding, Transfer_Encoding="chunked"), chunks + b"0\r\n\r\n"),
        lambda connection: [
            connection.sendall(part) or time.sleep(0.1) for part in (head(Content_Encoding=encoding), packed[:9], packed[9:])
        ],
    ):
        target = serve(answer) + "/a.jpg"
        for url in (target, serve(send(head("302 Found", Location=target, Content_Length=0)))):
            assert quick().get(url).data == WHOLE
            quick().save(url, tmp_path / "saved")
            assert (tmp_path / "saved").read_bytes() == WHOLE


HUB = """
import sys
from biaskit.errors import BiaskitError
from biaskit.prior import hub, store
hub.HUB_SECONDS = 5.0
try:
    store.load_prior("org/repo", hub=True)
except BiaskitError as error:
    print("refused:", error.message[:300], "|", error.hint)
"""

META = {"ETag": '"abc"', "X-Repo-Commit": "a" * 40}


@pytest.mark.parametrize("fault", ["cut short", "drips the body", "no HTTP", "redirect to garbage", "500", "a size that lies", "HTML"])
def test_a_prior_from_the_hub(fault, serve, tmp_path, counted):
    """huggingface_hub itself, in a process of its own, against a server that answers every request the same way."""
    meta = {name.replace("-", "_"): value for name, value in META.items()}
    own = {
        "a size that lies": send(head(Content_Length=10, X_Linked_Size=10**12, **meta), b"0123456789"),
        "HTML": send(head(Content_Length=15, Content_Type="text/html", **meta), b"<!DOCTYPE html>"),
        "cut short": send(head(Content_Length=5000, **meta), b"abc"),
        "drips the body": drip(head(Content_Length=10**6, **meta)),
    }
    environment = {**os.environ, "PYTHONPATH": str(Path(biaskit.__file__).parents[1]), "HF_ENDPOINT": serve({**FAULTS, **own}[fault]),
                   "HF_HOME": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "0",
                   "HF_HUB_ETAG_TIMEOUT": "2", "HF_HUB_DOWNLOAD_TIMEOUT": "2", "HF_HUB_DISABLE_XET": "1"}  # fmt: skip
    done = subprocess.run([sys.executable, "-c", HUB], env=environment, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert "Traceback" not in done.stderr, done.stderr[-2000:]
    assert done.stdout.startswith("refused:"), done
    counted("faults of the hub", 1)
