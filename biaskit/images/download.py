"""Downloads that bear a bad line: retried with back-off, whole or not at all, and parts of a remote file by HTTP Range."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from biaskit import files
from biaskit.errors import FileError, SourceError

if TYPE_CHECKING:
    import urllib3

LOCAL_COPY = (
    "check the network, or use a local copy: --coco-root DIR or $BIASKIT_COCO, where DIR holds annotations/instances_val2017.json"
    " and val2017/ or val2017.zip"
)
THREADS = 8
_LONGEST_WAIT = 60.0  # seconds: a server may ask for an hour by Retry-After, nobody waits that long
_RETRIED = (408, 429, 500, 502, 503, 504)


class NotServedError(SourceError):
    """The server is well but does not hand out this one file (403, 404, 410)."""


class Downloader:
    """HTTP GET with retries. Threads may share one; it can be pickled, and a forked child opens connections of its own.

    Connection and read errors, bodies cut short, and the statuses 408, 429 and 5xx are tried again, after Retry-After where the server
    gives it. Proxies are taken from the environment as everywhere (`http_proxy`, `no_proxy`, …).

    Args:
        retries: how often to try again.
        backoff: seconds; the waits are 0, 2, 4, 8, … times this.
        timeout: seconds to connect, and between two packets.
    """

    def __init__(self, retries: int = 5, backoff: float = 0.5, timeout: float = 30.0) -> None:
        self.retries = retries
        self.backoff = backoff
        self.timeout = timeout
        self._pools: tuple[int, dict[str | None, urllib3.PoolManager]] = (0, {})

    def __getstate__(self) -> dict[str, Any]:
        """Leave the open connections behind."""
        return {**self.__dict__, "_pools": (0, {})}

    def get(self, url: str, headers: Mapping[str, str] | None = None) -> urllib3.BaseHTTPResponse:
        """Return the answer to a GET request, its body read in full and as long as Content-Length says.

        Raises:
            NotServedError: status 403, 404 or 410.
            SourceError: not an http(s) URL, no connection, or another status that is no success, after all retries.
        """
        with _network_errors(url):
            return _checked(self._request(url, headers, whole=True), url)

    def length_if_ranged(self, url: str) -> int | None:
        """Return the size of a remote file in bytes if the server hands out parts of it, else None. The body is not read.

        Raises:
            NotServedError, SourceError: as `get`.
        """
        with _network_errors(url):
            response = _checked(self._request(url, {"Range": "bytes=0-0"}, whole=False), url)
            total = re.fullmatch(r"bytes 0-0/(\d+)", response.headers.get("Content-Range", ""))
            response.close()  # not drained: a server that ignores Range is sending the whole file
            return int(total[1]) if response.status == 206 and total else None

    def save(self, url: str, target: Path) -> None:
        """Download a large file to `target`, atomically.

        Raises:
            NotServedError, SourceError: as `get`; SourceError also if `target` cannot be written.
        """
        with _network_errors(url), replacing(target) as file:
            for attempt in range(self.retries + 1):
                response = _checked(self._request(url, None, whole=False), url)
                try:
                    for block in response.stream(1 << 20):
                        file.write(block)
                    return
                except _errors().HTTPError:  # urllib3 itself retries only bodies that it reads in one go
                    if attempt == self.retries:
                        raise
                    file.seek(0)
                    file.truncate()
                finally:
                    response.close()

    def _request(self, url: str, headers: Mapping[str, str] | None, *, whole: bool) -> urllib3.BaseHTTPResponse:
        import urllib3

        from biaskit import __version__

        class Patience(urllib3.Retry):
            def get_retry_after(self, response: urllib3.BaseHTTPResponse) -> float | None:
                wait = super().get_retry_after(response)
                return None if wait is None else min(wait, _LONGEST_WAIT)

        sent = {"User-Agent": f"biaskit/{__version__}", "Accept-Encoding": "identity", **(headers or {})}
        patience = Patience(self.retries, connect=min(self.retries, 3), backoff_factor=self.backoff, status_forcelist=_RETRIED)
        return self._pool(url).request("GET", url, headers=sent, retries=patience, timeout=self.timeout, preload_content=whole)

    def _pool(self, url: str) -> urllib3.PoolManager:
        import urllib3

        scheme, host = _address(url)
        if self._pools[0] != os.getpid():  # connections of a parent process are not ours to write to
            self._pools = (os.getpid(), {})
        proxy = None if proxy_bypass(host) else getproxies().get(scheme)
        pools = self._pools[1]
        if proxy not in pools:
            size: dict[str, Any] = {"num_pools": THREADS, "maxsize": THREADS}
            if proxy is None:
                pools[proxy] = urllib3.PoolManager(**size)
            else:
                user = urlsplit(proxy)
                login = f"{unquote(user.username)}:{unquote(user.password or '')}" if user.username else None
                pools[proxy] = urllib3.ProxyManager(proxy, proxy_headers=urllib3.make_headers(proxy_basic_auth=login), **size)
        return pools[proxy]


class RangeFile(io.RawIOBase):
    """A remote file, readable and seekable by HTTP Range: enough for `zipfile`.

    Args:
        url: its address.
        size: its length in bytes, from `Downloader.length_if_ranged`.
        downloader: makes the requests.
    """

    def __init__(self, url: str, size: int, downloader: Downloader) -> None:
        super().__init__()
        self._url = url
        self._size = size
        self._downloader = downloader
        self._position = 0

    def readable(self) -> bool:
        """Tell that reading works."""
        return True

    def seekable(self) -> bool:
        """Tell that seeking works."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a byte and return its number."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        if start + offset < 0:
            raise OSError(f"cannot seek to byte {start + offset}")
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        """Return the number of the next byte."""
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer by one request, as far as the file goes, and return how many bytes came.

        Raises:
            SourceError: the server gave something else than this part.
        """
        start, stop = self._position, min(self._position + len(buffer), self._size)
        if start >= stop:
            return 0
        response = self._downloader.get(self._url, {"Range": f"bytes={start}-{stop - 1}"})
        granted = response.headers.get("Content-Range", "")
        if response.status != 206 or not granted.startswith(f"bytes {start}-") or len(response.data) != stop - start:
            raise SourceError(f"{self._url}: asked for bytes {start} to {stop - 1}, got {granted or 'none'}", LOCAL_COPY)
        buffer[: stop - start] = response.data
        self._position = stop
        return stop - start


@contextmanager
def replacing(target: Path) -> Iterator[IO[bytes]]:
    """Give a file of a unique name that takes the place of `target` when the block ends well, and vanishes when it does not.

    Raises:
        SourceError: the disk is full, or the directory cannot be written.
    """
    try:
        with files.replacing(target) as file:
            yield file
    except FileError as error:
        raise SourceError(error.message, "free some space or choose another cache with $BIASKIT_CACHE") from error


@contextmanager
def _network_errors(url: str) -> Iterator[None]:
    """Turn what urllib3 raises into a SourceError that names the address and a way out."""
    try:
        yield
    except _errors().HTTPError as error:
        cause = getattr(error, "reason", None) or error
        raise SourceError(f"cannot download {url}: {cause}", LOCAL_COPY) from error


def _address(url: str) -> tuple[str, str]:
    """Return scheme and host."""
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SourceError(f"cannot download {url!r}: not an http or https address", "use a local copy or correct the address")
    return parts.scheme, parts.hostname


def _checked(response: urllib3.BaseHTTPResponse, url: str) -> urllib3.BaseHTTPResponse:
    if response.status in (200, 206):
        return response
    response.close()
    if response.status in (403, 404, 410):
        raise NotServedError(f"{url} is not served (HTTP {response.status})", LOCAL_COPY)
    raise SourceError(f"cannot download {url}: HTTP {response.status} {response.reason or ''}".rstrip(), LOCAL_COPY)


def _errors() -> Any:
    """Return urllib3's exceptions; a function, because urllib3 is imported only where something is downloaded."""
    import urllib3.exceptions

    return urllib3.exceptions
