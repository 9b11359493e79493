"""Downloads over unreliable networks: retried with back-off, atomic, limited in time and size."""

from __future__ import annotations

import os
import re
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote, urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

from biaskit.errors import FileError, SourceError
from biaskit.files import VERSION
from biaskit.files import replacing as replacing_file
from biaskit.images.answer import FILE_SECONDS, LOCAL_COPY, MAX_BODY, MAX_FILE, Answer, NotServedError, blocks, retry_after
from biaskit.images.deadline import Deadline, watched_pools

if TYPE_CHECKING:
    import urllib3

THREADS = 8
_RETRIED = (408, 429, 500, 502, 503, 504)
_REDIRECTS = (301, 302, 303, 307, 308)
_MOST_REDIRECTS = 5
_T = TypeVar("_T")


class Downloader:
    """HTTP GET with retries. Threads may share one; it can be pickled, and a forked child opens connections of its own.

    Connection and read errors, bodies cut short, and the statuses 408, 429 and 5xx are tried again, after Retry-After where the server
    gives it. Proxies are taken from the environment as everywhere (`http_proxy`, `no_proxy`, …).

    Args:
        retries: how often to try again.
        backoff: seconds; the waits are 0, 2, 4, 8, … times this.
        timeout: seconds to connect, and between two packets.
        deadline: seconds for one object: all attempts, redirects and waits together.
    """

    def __init__(self, retries: int = 5, backoff: float = 0.5, timeout: float = 30.0, deadline: float = 300.0) -> None:
        self.retries = retries
        self.backoff = backoff
        self.timeout = timeout
        self.deadline = deadline
        self._pools: tuple[int, dict[str | None, urllib3.PoolManager]] = (0, {})

    def __getstate__(self) -> dict[str, Any]:
        """Pickle without the open connections."""
        return {**self.__dict__, "_pools": (0, {})}

    def get(self, url: str, headers: Mapping[str, str] | None = None, limit: int = MAX_BODY) -> Answer:
        """Return the answer to a GET request, its body read in full and as long as Content-Length says.

        Args:
            url: the address. headers: to send. limit: bytes that the body may have, packed or unpacked.

        Raises:
            NotServedError: status 403, 404 or 410.
            TooLargeError: the body has, or says it has, more than `limit` bytes.
            SourceError: not an http(s) URL, no connection, not done by the deadline, or a status other than success, after all
                retries.
        """

        def receive(response: urllib3.BaseHTTPResponse) -> Answer:
            data = b"".join(blocks(response, url, limit))
            return Answer(response.status, response.headers, data)

        return self._ask(url, headers, receive, Deadline(self.deadline))

    def length_if_ranged(self, url: str) -> int | None:
        """Return the size of a remote file in bytes if the server supports Range requests, else None. The body is not read.

        Raises:
            NotServedError, SourceError: as `get`.
        """

        def receive(response: urllib3.BaseHTTPResponse) -> int | None:
            total = re.fullmatch(r"bytes 0-0/(\d{1,18})", response.headers.get("Content-Range", ""))
            return int(total[1]) if response.status == 206 and total else None

        return self._ask(url, {"Range": "bytes=0-0"}, receive, Deadline(self.deadline))

    def save(self, url: str, target: Path, limit: int = MAX_FILE, seconds: float = FILE_SECONDS) -> None:
        """Download a large file to `target`, atomically, within a number of seconds.

        Raises:
            NotServedError, TooLargeError, SourceError: as `get`; SourceError also if `target` cannot be written.
        """
        with replacing(target) as file:

            def receive(response: urllib3.BaseHTTPResponse) -> None:
                with _disk_errors(target):
                    file.seek(0)
                    file.truncate()
                for block in blocks(response, url, limit):
                    with _disk_errors(target):
                        file.write(block)

            self._ask(url, None, receive, Deadline(seconds))

    def _ask(
        self, url: str, headers: Mapping[str, str] | None, receive: Callable[[urllib3.BaseHTTPResponse], _T], deadline: Deadline
    ) -> _T:
        """Pass the first successful response to `receive`, with retries if that fails."""
        _address(url)
        for attempt in range(self.retries + 1):
            last = attempt == self.retries
            asked = None
            try:
                with deadline.guard(), self._answer(url, headers, deadline) as response:
                    if response.status not in _RETRIED or last:
                        received = receive(_checked(response, url))
                        if deadline.passed:  # a body without a length looks complete when its connection is closed
                            raise TimeoutError
                        return received
                    asked = retry_after(response.headers.get("Retry-After", ""))
            except _failures() as error:
                if deadline.passed or deadline.left == 0:
                    raise late(url, deadline) from error
                refused = isinstance(error, _never_connected()) and attempt >= 3
                if last or refused or isinstance(error, ValueError):
                    raise SourceError(f"cannot download {url}: {in_words(error)}", LOCAL_COPY) from error
            wait = asked if asked is not None else self.backoff * 2**attempt if attempt else 0.0
            if wait >= deadline.left:
                raise late(url, deadline)
            if wait:
                time.sleep(wait)
        raise AssertionError("the last attempt returns or raises")

    @contextmanager
    def _answer(self, url: str, headers: Mapping[str, str] | None, deadline: Deadline) -> Iterator[urllib3.BaseHTTPResponse]:
        """Open the response at an address, following redirects; every step must be http or https."""
        sent = {"User-Agent": f"biaskit/{VERSION}", "Accept-Encoding": "identity", **(headers or {})}
        place = url
        for _ in range(_MOST_REDIRECTS + 1):
            patience = max(0.001, min(self.timeout, deadline.left))
            response = self._pool(place).request(
                "GET", place, headers=sent, retries=False, redirect=False, timeout=patience, preload_content=False, decode_content=False
            )
            try:
                if response.status not in _REDIRECTS or not response.headers.get("Location"):
                    yield response
                    return
                place = urljoin(place, response.headers["Location"])
            finally:
                response.close()  # not read to the end, which may be far or never come
        raise SourceError(f"cannot download {url}: it leads from one address to the next, over {_MOST_REDIRECTS} times", LOCAL_COPY)

    def _pool(self, url: str) -> urllib3.PoolManager:
        import urllib3

        scheme, host = _address(url)
        if self._pools[0] != os.getpid():  # a forked child must not use its parent's connections
            self._pools = (os.getpid(), {})
        proxy = None if proxy_bypass(host) else getproxies().get(scheme)
        pools = self._pools[1]
        if proxy not in pools:
            size: dict[str, Any] = {"num_pools": THREADS, "maxsize": THREADS}
            if proxy is None:
                made = urllib3.PoolManager(**size)
            else:
                user = urlsplit(proxy)
                login = f"{unquote(user.username)}:{unquote(user.password or '')}" if user.username else None
                made = urllib3.ProxyManager(proxy, proxy_headers=urllib3.make_headers(proxy_basic_auth=login), **size)
            made.pool_classes_by_scheme = dict(watched_pools())
            pools[proxy] = made
        return pools[proxy]


@contextmanager
def replacing(target: Path) -> Iterator[IO[bytes]]:
    """Yield a file of a unique name that replaces `target` when the block ends without error, and is deleted otherwise.

    Raises:
        SourceError: the disk is full, or the directory cannot be written.
    """
    try:
        with replacing_file(target) as file:
            yield file
    except FileError as error:
        raise SourceError(error.message, "free some space or choose another cache with $BIASKIT_CACHE") from error


@contextmanager
def _disk_errors(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        hint = "free some space or choose another cache with $BIASKIT_CACHE"
        raise SourceError(f"cannot write {str(target)!r}: {error.strerror or error}", hint) from error


def in_words(error: BaseException) -> str:
    """What an error of the network says, without the connection object that urllib3 puts before it.

    Example:
        >>> in_words(OSError("HTTPConnection(host='a.org', port=80): Failed to resolve 'a.org'"))
        "Failed to resolve 'a.org'"
    """
    return re.sub(r"^\w+\(host=[^)]*\): ", "", str(error)) or type(error).__name__


def late(url: str, deadline: Deadline) -> SourceError:
    """Return the error for a response that did not arrive in time."""
    return SourceError(f"cannot download {url}: not done within {deadline.seconds:g} s", LOCAL_COPY)


def _address(url: str) -> tuple[str, str]:
    """Return scheme and host."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
        _ = parts.port
    except ValueError:
        parts, host = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not host:
        raise SourceError(f"cannot download {url!r}: not an http or https address", "use a local copy or correct the address")
    return parts.scheme, host


def _checked(response: urllib3.BaseHTTPResponse, url: str) -> urllib3.BaseHTTPResponse:
    if response.status in (200, 206):
        return response
    if response.status in (403, 404, 410):
        raise NotServedError(f"{url} is not served (HTTP {response.status})", LOCAL_COPY)
    raise SourceError(f"cannot download {url}: HTTP {response.status} {response.reason or ''}".rstrip(), LOCAL_COPY)


def _failures() -> tuple[type[Exception], ...]:
    """Return the exceptions of requests; a function, because urllib3 is imported only for downloads."""
    import urllib3.exceptions

    return urllib3.exceptions.HTTPError, HTTPException, OSError, ValueError, zlib.error


def _never_connected() -> tuple[type[Exception], ...]:
    import urllib3.exceptions

    return urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError
