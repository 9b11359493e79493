"""Threads that share one model: attributes with a value per thread, and the threads that still run when a block ends."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar, overload

from biaskit.errors import ModelError

T = TypeVar("T")
_PATIENCE = 10.0  # seconds that the end of a block waits before it reports which threads it waits for


class PerThread(Generic[T]):
    """An attribute with a separate value per thread, for the state of the call that runs in the thread.

    Example:
        >>> class Counted:
        ...     calls: PerThread[int] = PerThread(int)
        >>> one = Counted()
        >>> one.calls += 1
        >>> thread = threading.Thread(target=lambda: print(one.calls))
        >>> thread.start(); thread.join(); one.calls
        0
        1
    """

    def __init__(self, default: Callable[[], T]) -> None:
        """`default` makes a thread's initial value."""
        self.default = default

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, instance: None, owner: type) -> PerThread[T]: ...
    @overload
    def __get__(self, instance: object, owner: type) -> T: ...

    def __get__(self, instance: object | None, owner: type) -> T | PerThread[T]:
        if instance is None:
            return self
        own = _own(instance)
        if self.name not in own:
            own[self.name] = self.default()
        found: T = own[self.name]
        return found

    def __set__(self, instance: object, value: T) -> None:
        _own(instance)[self.name] = value


def _own(instance: object) -> dict[str, Any]:
    """The values of the running thread; they are freed when the thread or the instance ends."""
    attributes = vars(instance)
    local: threading.local = attributes.get("_threads") or attributes.setdefault("_threads", threading.local())
    return local.__dict__


class AtWork:
    """Tracks the threads that run a model inside a block; the end of the block waits for them."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.busy: Counter[int] = Counter()
        self.ending = self.broken = False

    def begin(self) -> None:
        """Note that a call of the model begins in this thread.

        Raises:
            ModelError: the block has ended, or an error left it.
        """
        me = threading.get_ident()
        with self.changed:
            if self.broken or (self.ending and not self.busy[me]):
                raise ModelError(
                    "the `with prune(...)` block ends while this thread runs the model",
                    "join the threads that generate before the block is left",
                )
            self.busy[me] += 1

    def end(self) -> None:
        """Note that a call in this thread has ended."""
        with self.changed:
            self.busy[threading.get_ident()] -= 1
            self.changed.notify_all()

    @contextmanager
    def call(self) -> Iterator[None]:
        """`begin` and `end` around a call, also if it raises."""
        self.begin()
        try:
            yield
        finally:
            self.end()

    def close(self, say: Callable[[str], None], *, failed: bool) -> None:
        """Wait for running calls of other threads and refuse new ones; after an error, stop them instead.

        Args:
            say: called with the threads' names if waiting takes long. failed: True if an error ends the block.
        """
        with self.changed:
            self.ending, self.broken = True, failed
            if not self.changed.wait_for(lambda: not self._others(), _PATIENCE):
                say(f"the end of the pruned block waits for threads that still generate: {', '.join(self._others())}")
                while not self.changed.wait_for(lambda: not self._others(), _PATIENCE):
                    pass

    def _others(self) -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread.ident != threading.get_ident() and self.busy[thread.ident or 0]]
