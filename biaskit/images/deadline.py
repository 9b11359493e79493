"""A time by which an answer from the network is whole, however slowly it comes: the timeouts of a socket begin anew with every byte."""

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
        seconds: how many there were. passed: whether the connection was cut because they were over.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.passed = False
        self._end = time.monotonic() + seconds
        self._socket: Any = None

    @property
    def left(self) -> float:
        """Return the seconds that are left, 0 where none are."""
        return max(0.0, self._end - time.monotonic())

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Cut the connection that this thread reads from within the block once the time is over."""
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
        """Take note of the socket that an answer is read from; called by the connection."""
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
    """Return urllib3's pools by scheme, with connections that show their socket to the current deadline; urllib3 is imported here."""
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
