"""A remote file, read in parts by HTTP Range."""

from __future__ import annotations

import io
import os
from typing import Any

from biaskit.errors import SourceError
from biaskit.images.answer import FILE_SECONDS, LOCAL_COPY, MAX_BODY, TooLargeError
from biaskit.images.deadline import Deadline
from biaskit.images.download import Downloader, late


class RangeFile(io.RawIOBase):
    """A remote file, readable and seekable by HTTP Range: enough for `zipfile`.

    Args:
        url: its address.
        size: its length in bytes, from `Downloader.length_if_ranged`.
        downloader: makes the requests.
        seconds: how long all of the reading may take.
    """

    def __init__(self, url: str, size: int, downloader: Downloader, seconds: float = FILE_SECONDS) -> None:
        super().__init__()
        self._url = url
        self._size = size
        self._downloader = downloader
        self._position = 0
        self._deadline = Deadline(seconds)

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True, as `readable`."""
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

    def read(self, size: int | None = -1, /) -> bytes:
        """Return up to `size` bytes, or all that remain; the buffer is never larger than the file.

        Raises:
            SourceError: as `readinto`.
        """
        left = max(0, self._size - self._position)
        wanted = left if size is None or size < 0 else min(size, left)
        buffer = bytearray(self._allowed(wanted))
        return bytes(buffer[: self.readinto(buffer)])

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer by one request, up to the end of the file, and return the number of bytes.

        Raises:
            SourceError: the server sent something other than this part, or takes too long.
        """
        start, stop = self._position, min(self._position + len(buffer), self._size)
        if start >= stop:
            return 0
        if self._deadline.left == 0:
            raise late(self._url, self._deadline)
        response = self._downloader.get(self._url, {"Range": f"bytes={start}-{stop - 1}"}, limit=self._allowed(stop - start))
        granted = response.headers.get("Content-Range", "")
        if response.status != 206 or not granted.startswith(f"bytes {start}-") or len(response.data) != stop - start:
            raise SourceError(f"{self._url}: asked for bytes {start} to {stop - 1}, got {granted or 'none'}", LOCAL_COPY)
        buffer[: stop - start] = response.data
        self._position = stop
        return stop - start

    def _allowed(self, count: int) -> int:
        """Return `count`, after checking it: zipfile requests many bytes at once only if a zip claims to have a huge directory."""
        if count > MAX_BODY:
            raise TooLargeError(f"{self._url} is not an annotation zip: its directory would have {count} bytes", LOCAL_COPY)
        return count
