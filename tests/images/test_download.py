"""Downloads without a server: addresses, proxies, places in the cache, files that replace each other, seeking in a remote file."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import urllib3

from biaskit.errors import SourceError
from biaskit.images.coco_stores import UrlStore
from biaskit.images.download import Downloader, replacing
from biaskit.images.remote_file import RangeFile


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/a.jpg", "a.jpg", "http://", "http://[", "//host/a.jpg"])
def test_only_http(url: str) -> None:
    with pytest.raises(SourceError, match=r"cannot download '.*': not an http or https address"):
        Downloader().get(url)


def test_places_in_the_cache_are_safe_and_distinct(tmp_path: Path) -> None:
    store = UrlStore(tmp_path, Downloader())
    urls = [
        "http://a/v/1.jpg",
        "http://b/v/1.jpg",
        "http://a/w/1.jpg",
        "http://a/v/1.jpg?x=1",
        "http://a/v/1.jpg?x=2",
        "http://a/v/..",
        "http://a/",
    ]
    places = [store.place(url) for url in [*urls, "http://a/v/a b.jpg", "http://a/v/a_b.jpg", "http://a/../../..%2f..%2fb.jpg"]]
    assert len(set(places)) == len(places)
    assert all(place.resolve().parent.parent == tmp_path.resolve() for place in places)
    assert places[0].name == "1.jpg"


def test_proxies_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://me:p%40ss@proxy.example:3128")
    monkeypatch.setenv("no_proxy", "inside.example")
    downloader = Downloader()
    pool = downloader._pool("http://images.example/a.jpg")
    assert isinstance(pool, urllib3.ProxyManager)
    assert pool.proxy is not None
    assert pool.proxy.host == "proxy.example"
    assert pool.proxy_headers["proxy-authorization"] == urllib3.make_headers(proxy_basic_auth="me:p@ss")["proxy-authorization"]
    assert downloader._pool("http://images.example/b.jpg") is pool
    assert not isinstance(downloader._pool("http://inside.example/a.jpg"), urllib3.ProxyManager)


def test_connections_are_not_shared_between_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    downloader = Downloader(retries=2)
    pool = downloader._pool("http://images.example/a.jpg")
    copy = pickle.loads(pickle.dumps(downloader))
    assert (copy.retries, copy._pools[1]) == (2, {})
    monkeypatch.setattr(os, "getpid", lambda: -1)  # as if forked
    assert downloader._pool("http://images.example/a.jpg") is not pool


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "file"
    with replacing(target) as file:
        file.write(b"old")
        assert not target.exists()
    with pytest.raises(KeyboardInterrupt), replacing(target) as file:  # the block itself is what is interrupted
        file.write(b"half of the n")
        raise KeyboardInterrupt
    assert target.read_bytes() == b"old"
    assert list(target.parent.iterdir()) == [target]


def test_unwritable_cache(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file in the way")
    with (
        pytest.raises(SourceError, match=r"cache/sub/x cannot be written: Not a directory") as caught,
        replacing(tmp_path / "cache" / "sub" / "x"),
    ):
        pytest.fail("there is nothing to write to")
    assert "$BIASKIT_CACHE" in caught.value.hint


class Pretender:
    """Answers range requests from memory, wrongly if told so."""

    def __init__(self, data: bytes, status: int = 206, short: int = 0) -> None:
        self.data, self.status, self.short = data, status, short

    def get(self, url: str, headers: dict[str, str], limit: int) -> Any:
        assert url == "http://x"
        first, last = (int(part) for part in headers["Range"].removeprefix("bytes=").split("-"))
        assert limit == last + 1 - first
        granted = {"Content-Range": f"bytes {first}-{last}/{len(self.data)}"}
        return SimpleNamespace(status=self.status, headers=granted, data=self.data[first : last + 1 - self.short])


def test_range_file_reads_and_seeks_like_a_file() -> None:
    remote = RangeFile("http://x", 10, cast("Downloader", Pretender(b"0123456789")))
    assert remote.read(3) == b"012"
    assert remote.tell() == 3
    assert remote.seek(-4, os.SEEK_END) == 6
    assert remote.read(100) == b"6789"
    assert remote.read(1) == b""
    assert remote.seek(2) == 2
    assert remote.seek(1, os.SEEK_CUR) == 3
    assert remote.read() == b"3456789"
    with pytest.raises(OSError, match="cannot seek to byte -1"):
        remote.seek(-1)


@pytest.mark.parametrize("wrong", [{"status": 200}, {"short": 1}])
def test_range_file_notices_a_server_that_changes_its_mind(wrong: dict[str, int]) -> None:
    with pytest.raises(SourceError, match="asked for bytes 0 to 2, got bytes 0-2/10"):
        RangeFile("http://x", 10, cast("Downloader", Pretender(b"0123456789", **wrong))).read(3)
