"""A deadline for a whole response. Socket timeouts are not enough: they restart with every byte."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import urllib3


class Deadline:
    """A number of seconds from now for one object: all attempts, redirects and waits together.

    Attributes:
        seconds: in all. passed: True if the connection was closed because of the deadline.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.passed = False
        self._end = time.monotonic() + seconds
        self._socket: Any = None

    @property
    def left(self) -> float:
        """Return the seconds that remain, at least 0."""
        return max(0.0, self._end - time.monotonic())

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Close the connection that this thread reads from inside the block when the deadline passes."""
        timer = threading.Timer(self.left, self._cut)
        timer.daemon = True
        token = _CURRENT.set(self)
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            _CURRENT.reset(token)
            self._socket = None

    def watch(self, connected: Any) -> None:
        """Set the socket that a response is read from; called by the connection."""
        self._socket = connected
        if self.passed:
            self._cut()

    def _cut(self) -> None:
        self.passed = True
        with suppress(OSError, AttributeError, TypeError):
            # the plain socket's method: that of a TLS socket would wait for the thread that reads
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


_CURRENT: ContextVar[Deadline | None] = ContextVar("deadline", default=None)


@cache
def watched_pools() -> dict[str, type[urllib3.HTTPConnectionPool]]:
    """Return urllib3's pools by scheme, with connections that register their socket with the current deadline."""
    import urllib3
    from urllib3.connection import HTTPConnection, HTTPSConnection

    class Plain(HTTPConnection):
        def getresponse(self) -> Any:
            show(self.sock)
            return super().getresponse()

    class Secure(HTTPSConnection):
        def getresponse(self) -> Any:
            show(self.sock)
            return super().getresponse()

    class PlainPool(urllib3.HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(urllib3.HTTPSConnectionPool):
        ConnectionCls = Secure

    def show(connected: Any) -> None:
        deadline = _CURRENT.get()
        if deadline is not None:
            deadline.watch(connected)

    return {"http": PlainPool, "https": SecurePool}
