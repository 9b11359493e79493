"""COCO from the network, played by a local server that misbehaves on request."""

from __future__ import annotations

import io
import json
import pickle
import random
import re
import threading
import zipfile
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image

from biaskit.errors import ImageSkipped, SourceError
from biaskit.images.coco import CocoSource, open_coco
from biaskit.images.coco_files import fetch_annotations
from biaskit.images.download import Downloader
from biaskit.images.generated import GeneratedSource

FAST = Downloader(retries=3, backoff=0.001, timeout=5)


class Server(ThreadingHTTPServer):
    """Serves `files`; `fail[path]` answers come as a status, the next `cut[path]` ones with half the body."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.fail: dict[str, tuple[int, int]] = {}  # path -> (how many times, status)
        self.cut: Counter[str] = Counter()
        self.ranges = True
        self.kind = "image/jpeg"
        self.headers: dict[str, str] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.sent = 0
        self.together: threading.Barrier | None = None
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *args: object) -> None:
        """Keep quiet."""

    def do_GET(self) -> None:
        server, path = self.server, self.path
        server.asked.append((path, self.headers["Range"]))
        if server.together is not None:
            server.together.wait(5)
        times, status = server.fail.get(path, (0, 0))
        server.fail[path] = (max(times - 1, 0), status)
        if not times:
            status = 200 if path in server.files else 404
        body = server.files.get(path, b"") if status == 200 else b"sorry"
        part = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["Range"] or "") if server.ranges and status == 200 else None
        headers = dict(server.headers)
        if part:
            first, last = int(part[1]), min(int(part[2]), len(body) - 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(body)}"
            body, status = body[first : last + 1], 206
        self.send_response(status)
        for key, value in {"Content-Type": server.kind, "Content-Length": str(len(body)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if server.cut[path] and status in (200, 206):
            server.cut[path] -= 1
            body = body[: len(body) // 2]
        server.sent += len(body)
        self.wfile.write(body)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("BIASKIT_COCO", raising=False)
    server = Server()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def source(server: Server, tmp_path: Path) -> CocoSource:
    return CocoSource(described(server, tmp_path / "instances_val2017.json"), cache=tmp_path / "cache", downloader=FAST)


def described(server: Server, path: Path, count: int = 10) -> Path:
    """Put images on the server and write the annotation file that lists them."""
    records = []
    for index, name in enumerate(f"{index:012d}.jpg" for index in range(count)):
        buffer = io.BytesIO()
        GeneratedSource(count, 1).load(index).resize((40 + index, 30)).save(buffer, "JPEG")
        server.files[f"/val2017/{name}"] = buffer.getvalue()
        records.append({"id": index, "file_name": name, "width": 40 + index, "height": 30, "coco_url": f"{server.url}/val2017/{name}"})
    path.write_text(json.dumps({"images": records, "annotations": [], "categories": []}))
    return path


def path_of(index: int) -> str:
    return f"/val2017/{index:012d}.jpg"


def cached(folder: Path) -> list[str]:
    return sorted(place.name for place in (folder / "cache").rglob("*") if place.is_file())


def test_images_are_streamed_once(server: Server, source: CocoSource, tmp_path: Path) -> None:
    assert server.asked == []
    assert source[3].size == (43, 30)
    assert source.open(3) == server.files[path_of(3)]
    assert server.asked == [(path_of(3), None)]
    again = CocoSource(tmp_path / "instances_val2017.json", cache=tmp_path / "cache", downloader=FAST)
    assert again[3].size == (43, 30)
    assert len(server.asked) == 1
    assert cached(tmp_path) == ["000000000003.jpg"]


def test_fetch_takes_what_is_missing_at_the_same_time(server: Server, source: CocoSource) -> None:
    source.open(0)
    server.together = threading.Barrier(8)  # passes only if eight requests are under way at once
    source.fetch([0, *range(1, 9), 1])
    server.together = None
    assert sorted(path for path, _ in server.asked) == [path_of(index) for index in range(9)]
    asked = len(server.asked)
    assert [source[index].size[0] for index in range(9)] == list(range(40, 49))
    source[2:6].fetch(range(4))
    assert len(server.asked) == asked


@pytest.mark.parametrize("status", [500, 502, 503, 504, 429])
def test_passing_trouble_is_waited_out(server: Server, source: CocoSource, status: int) -> None:
    server.fail[path_of(1)] = (2, status)
    assert source[1].size == (41, 30)
    assert [path for path, _ in server.asked] == [path_of(1)] * 3


def test_retry_after_is_respected_within_reason(server: Server, source: CocoSource, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr("urllib3.util.retry.time.sleep", waits.append)
    server.headers = {"Retry-After": "7"}
    server.fail[path_of(1)] = (1, 429)
    source.open(1)
    server.headers = {"Retry-After": "86400"}
    server.fail[path_of(2)] = (1, 503)
    source.open(2)
    assert waits == [7, 60]


@pytest.mark.parametrize("status", [403, 404, 410])
def test_an_image_not_served_is_skipped(server: Server, source: CocoSource, status: int, tmp_path: Path) -> None:
    server.fail[path_of(4)] = (9, status)
    source.fetch(range(10))  # tells nothing, gets the others
    with pytest.raises(ImageSkipped, match=rf"'000000000004\.jpg': http.*4\.jpg is not served \(HTTP {status}\)"):
        source.open(4)
    assert [path for path, _ in server.asked].count(path_of(4)) == 2  # asked once each, never again and again
    assert len(cached(tmp_path)) == 9


def test_a_body_cut_short_is_fetched_again_and_never_cached(server: Server, source: CocoSource, tmp_path: Path) -> None:
    server.cut[path_of(5)] = 2
    assert source.open(5) == server.files[path_of(5)]
    server.cut[path_of(6)] = 99
    with pytest.raises(SourceError, match=r"cannot download http.*6\.jpg"):
        source.open(6)
    assert cached(tmp_path) == ["000000000005.jpg"]


def test_dead_network_says_how_to_use_a_local_copy(server: Server, source: CocoSource) -> None:
    server.shutdown()
    server.server_close()
    for attempt in (lambda: source.open(0), lambda: source.fetch(range(10))):
        with pytest.raises(SourceError, match=r"cannot download http://127\.0\.0\.1.*refused") as caught:
            attempt()
        assert "(host=" not in caught.value.message, "no object of urllib3's"
        assert "--coco-root DIR or $BIASKIT_COCO" in caught.value.hint
        assert "annotations/instances_val2017.json" in caught.value.hint
        assert "val2017.zip" in caught.value.hint


def test_a_server_that_stays_broken_stops_the_source(server: Server, source: CocoSource) -> None:
    server.fail[path_of(0)] = (99, 500)
    with pytest.raises(SourceError, match="500"):
        source.open(0)
    assert len(server.asked) == 1 + FAST.retries
    server.fail[path_of(1)] = (99, 401)
    with pytest.raises(SourceError, match="HTTP 401"):
        source.fetch([1])


def test_a_login_page_does_not_settle_in_the_cache(server: Server, source: CocoSource, tmp_path: Path) -> None:
    server.kind = "text/html; charset=utf-8"
    with pytest.raises(ImageSkipped, match="answers with text/html; charset=utf-8, no image"):
        source.open(0)
    server.kind = "image/jpeg"
    server.files[path_of(0)] = b""
    with pytest.raises(ImageSkipped, match="answers with nothing, no image"):
        source.open(0)
    assert not (tmp_path / "cache").exists()


def test_redirect_away_from_http_is_refused(server: Server) -> None:
    server.headers = {"Location": "file:///etc/passwd"}
    server.fail["/x"] = (9, 302)
    with pytest.raises(SourceError, match="cannot download"):
        FAST.get(server.url + "/x")


def test_a_record_without_address(server: Server, tmp_path: Path) -> None:
    path = described(server, tmp_path / "x.json", 2)
    path.write_text(path.read_text().replace(f"{server.url}{path_of(1)}", ""))
    source = CocoSource(path, cache=tmp_path / "cache", downloader=FAST)
    source.fetch([0, 1])
    with pytest.raises(ImageSkipped, match=r"1\.jpg' has no coco_url"):
        source.open(1)


def test_streaming_source_can_be_pickled(source: CocoSource) -> None:
    source.open(0)
    copy = pickle.loads(pickle.dumps(source))
    assert copy[1].size == (41, 30)
    assert copy.fingerprint() == source.fingerprint()


def official_zip(server: Server, tmp_path: Path) -> bytes:
    """Put a zip like the official one on the server: large, with the wanted member in the middle."""
    wanted = described(server, tmp_path / "wanted.json").read_bytes()
    noise = random.Random(0)
    with zipfile.ZipFile(tmp_path / "all.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("annotations/instances_train2017.json", noise.randbytes(6 << 20))
        archive.writestr("annotations/instances_val2017.json", wanted + bytes(noise.choices(b" \n\t\r", k=1 << 20)))
        archive.writestr("annotations/captions_train2017.json", noise.randbytes(6 << 20))
    server.files["/annotations/annotations_trainval2017.zip"] = (tmp_path / "all.zip").read_bytes()
    return wanted


def test_of_the_annotation_zip_only_one_member_is_read(server: Server, tmp_path: Path) -> None:
    wanted = official_zip(server, tmp_path)
    path = fetch_annotations("val2017", tmp_path / "cache", server.url, FAST)
    assert path.read_bytes().rstrip() == wanted.rstrip()
    assert server.sent < 4 << 20  # of more than 12 MiB
    assert all(part for _, part in server.asked)
    assert len(server.asked) < 8
    asked = len(server.asked)
    assert fetch_annotations("val2017", tmp_path / "cache", server.url, FAST) == path
    assert len(server.asked) == asked
    assert cached(tmp_path) == ["instances_val2017.json"]


def test_a_server_without_range_sends_the_whole_zip(server: Server, tmp_path: Path) -> None:
    wanted = official_zip(server, tmp_path)
    server.ranges = False
    server.cut["/annotations/annotations_trainval2017.zip"] = 2  # the request that finds out, and the first try
    path = fetch_annotations("val2017", tmp_path / "cache", server.url, FAST)
    assert path.read_bytes().rstrip() == wanted.rstrip()
    assert cached(tmp_path) == [path.name]
    server.cut["/annotations/annotations_trainval2017.zip"] = 1
    FAST.save(server.url + "/annotations/annotations_trainval2017.zip", tmp_path / "saved")
    assert (tmp_path / "saved").read_bytes() == (tmp_path / "all.zip").read_bytes()


@pytest.mark.parametrize("ranges", [True, False])
def test_trouble_with_the_annotation_zip(server: Server, tmp_path: Path, ranges: bool) -> None:
    server.ranges = ranges
    zip_path = "/annotations/annotations_trainval2017.zip"
    with pytest.raises(SourceError, match=r"is not served \(HTTP 404\)"):
        fetch_annotations("val2017", tmp_path / "cache", server.url, FAST)
    server.files[zip_path] = b"no zip" * 100
    with pytest.raises(SourceError, match="cannot read annotation zip http"):
        fetch_annotations("val2017", tmp_path / "cache", server.url, FAST)
    official_zip(server, tmp_path)
    damaged = bytearray(server.files[zip_path])
    with zipfile.ZipFile(io.BytesIO(damaged)) as archive:
        place = archive.getinfo("annotations/instances_val2017.json").header_offset
    damaged[place + 150] ^= 255
    server.files[zip_path] = bytes(damaged)
    with pytest.raises(SourceError, match=r"annotation zip http.* is damaged"):
        fetch_annotations("val2017", tmp_path / "cache", server.url, FAST)
    server.cut[zip_path] = 99
    with pytest.raises(SourceError, match="cannot download"):
        fetch_annotations("val2017", tmp_path / "cache", server.url, FAST)
    with pytest.raises(SourceError, match="split 'val2099' is unknown"):
        fetch_annotations("val2099", tmp_path / "cache", server.url, FAST)
    assert cached(tmp_path) == []


def test_open_coco_from_nothing(server: Server, tmp_path: Path) -> None:
    official_zip(server, tmp_path)
    source = open_coco(cache=tmp_path / "cache", base_url=server.url, downloader=FAST)
    source.fetch(range(3))
    assert [source[index].size for index in range(3)] == [(40, 30), (41, 30), (42, 30)]


HTML = b"<!DOCTYPE html><html><body>Please log in</body></html>"


@pytest.mark.parametrize("kind", ["html", "cut short", "another picture", "a thumbnail", "random bytes"])
def test_nothing_but_the_picture_enters_the_cache(server: Server, source: CocoSource, tmp_path: Path, kind: str) -> None:
    """The server says image/jpeg whatever it sends, and is well again afterwards."""
    right = server.files[path_of(3)]
    buffer = io.BytesIO()
    Image.open(io.BytesIO(right)).resize((20, 18)).save(buffer, "JPEG")
    wrong = {"html": HTML, "cut short": right[:-30], "another picture": server.files[path_of(4)], "a thumbnail": buffer.getvalue(),
             "random bytes": b"\xff\xd8\xff" + bytes(500)}[kind]  # fmt: skip
    server.files[path_of(3)] = wrong
    with pytest.raises(ImageSkipped, match=r"'000000000003\.jpg'"):
        source.load(3)
    source.fetch([3])
    assert cached(tmp_path) == []
    server.files[path_of(3)] = right
    assert source[3].size == (43, 30)
    assert cached(tmp_path) == ["000000000003.jpg"]


@pytest.mark.parametrize("bad", [HTML, b"", b"\xff\xd8\xff", "cut short", "another picture", "directory"])
def test_a_bad_entry_is_thrown_away_and_fetched_again(server: Server, source: CocoSource, tmp_path: Path, bad: bytes | str) -> None:
    """Whatever left it there: an older version, a full disk, somebody's proxy."""
    source.open(3)
    (place,) = (place for place in (tmp_path / "cache").rglob("*.jpg"))
    if bad == "directory":
        place.unlink()
        place.mkdir()
        with pytest.raises(SourceError, match="is a folder"):
            source.load(3)
        return
    known = {"cut short": server.files[path_of(3)][:-30], "another picture": server.files[path_of(4)]}
    place.write_bytes(known[bad] if isinstance(bad, str) else bad)
    assert source[3].size == (43, 30)
    assert place.read_bytes() == server.files[path_of(3)]


def test_a_picture_turned_by_exif_is_the_one_described(server: Server, source: CocoSource, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.open(io.BytesIO(server.files[path_of(3)])).save(buffer, "JPEG", exif=exif)
    server.files[path_of(3)] = buffer.getvalue()
    assert source[3].size == (30, 43)
    assert cached(tmp_path) == ["000000000003.jpg"]


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("foreign", ["{}", '{"images": []}', '{"images": [', "<html>"])
def test_a_foreign_annotation_zip_does_not_stay(server: Server, tmp_path: Path, foreign: str, ranges: bool) -> None:
    server.ranges = ranges
    with zipfile.ZipFile(tmp_path / "foreign.zip", "w") as archive:
        archive.writestr("annotations/instances_val2017.json", foreign)
    server.files["/annotations/annotations_trainval2017.zip"] = (tmp_path / "foreign.zip").read_bytes()
    with pytest.raises(SourceError, match=r"instances_val2017\.json"):
        open_coco(cache=tmp_path / "cache", base_url=server.url, downloader=FAST)
    assert cached(tmp_path) == []
    official_zip(server, tmp_path)
    assert len(open_coco(cache=tmp_path / "cache", base_url=server.url, downloader=FAST)) == 10
    (tmp_path / "cache" / "annotations" / "instances_val2017.json").write_text(foreign)  # poisoned by an older version
    assert len(open_coco(cache=tmp_path / "cache", base_url=server.url, downloader=FAST)) == 10
