"""An HTTP response: its largest allowed size, and its body, unpacked up to that size."""

from __future__ import annotations

import re
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from email.utils import mktime_tz, parsedate_tz
from typing import TYPE_CHECKING

from biaskit.errors import SourceError

if TYPE_CHECKING:
    import urllib3

LOCAL_COPY = (
    "check the network, or use a local copy: --coco-root DIR or $BIASKIT_COCO, where DIR holds annotations/instances_val2017.json"
    " and val2017/ or val2017.zip; without either, scenes, generated, grey, noise and colours need no network: --data scenes"
)
MAX_BODY = 64 << 20
"""Default for the largest unpacked size in bytes of a response that is kept in memory."""
MAX_FILE = 2 << 30
"""Largest size in bytes of a response that is written to disk. COCO's annotation zips have 250 MB."""
FILE_SECONDS = 3600.0
"""Most seconds for a file that is written to disk."""


_LONGEST_WAIT = 60.0  # seconds: a server may ask for an hour by Retry-After: longer waits are refused
_BLOCK = 1 << 16


class NotServedError(SourceError):
    """The server works but does not serve this file (403, 404, 410)."""


class TooLargeError(SourceError):
    """The response is longer than allowed."""


@dataclass(frozen=True, eq=False)
class Answer:
    """A response, read in full: HTTP status, headers (names in any case), and the unpacked body."""

    status: int
    headers: Mapping[str, str]
    data: bytes


def blocks(response: urllib3.BaseHTTPResponse, url: str, limit: int) -> Iterator[bytes]:
    """Yield the body as it comes, unpacked, and at most `limit` bytes of it."""
    too_large = TooLargeError(f"{url} is over the {limit} bytes that it may have", "give another address, or a local copy")
    stated = response.headers.get("Content-Length", "")
    if stated.isascii() and stated.isdigit() and (len(stated) > 18 or int(stated) > limit):
        raise too_large
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("", "identity", "gzip", "x-gzip", "deflate"):
        raise SourceError(f"{url} comes in the encoding {encoding!r}, which was not asked for", LOCAL_COPY)
    unpacker = None if encoding in ("", "identity") else zlib.decompressobj(zlib.MAX_WBITS | 32)
    packed = total = 0
    while block := response.read1(_BLOCK):
        packed += len(block)
        while block:
            piece = block if unpacker is None else unpacker.decompress(block, _BLOCK)
            block = b"" if unpacker is None else unpacker.unconsumed_tail
            total += len(piece)
            if max(total, packed) > limit:
                raise too_large
            yield piece
    if unpacker is not None and not unpacker.eof:
        raise zlib.error("the packed body ends too early")


def retry_after(text: str) -> float | None:
    """Return the seconds that a Retry-After header asks for, at most a minute; None where it cannot be read.

    >>> retry_after("5"), retry_after("3600"), retry_after("soon")
    (5.0, 60.0, None)
    """
    if re.fullmatch(r"\s*\d{1,9}\s*", text):
        return min(float(text), _LONGEST_WAIT)
    moment = parsedate_tz(text)
    with suppress(ValueError, OverflowError):
        return None if moment is None else min(max(0.0, mktime_tz(moment) - time.time()), _LONGEST_WAIT)
    return None
