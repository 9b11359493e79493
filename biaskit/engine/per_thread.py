"""Threads that share one model: attributes of which each has its own value, and who is still at work when a block ends."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar, overload

from biaskit.errors import ModelError

T = TypeVar("T")
_PATIENCE = 10.0  # seconds that the end of a block waits before it says what it is waiting for


class PerThread(Generic[T]):
    """An attribute of which every thread has its own value: what belongs to the call that runs in it.

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
        """Take what makes the value that a thread begins with."""
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
    """The values of the running thread; they go when it ends, or the instance."""
    held = vars(instance)
    local: threading.local = held.get("_threads") or held.setdefault("_threads", threading.local())
    return local.__dict__


class AtWork:
    """Which threads run a model inside a block; the block ends when the others are done."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.busy: Counter[int] = Counter()
        self.ending = self.broken = False

    def begin(self) -> None:
        """A call of the model begins in this thread.

        Raises:
            ModelError: the block has ended meanwhile, or was left by an error.
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
        """A call that was begun in this thread is over."""
        with self.changed:
            self.busy[threading.get_ident()] -= 1
            self.changed.notify_all()

    @contextmanager
    def call(self) -> Iterator[None]:
        """A call of the model, whatever becomes of it."""
        self.begin()
        try:
            yield
        finally:
            self.end()

    def close(self, say: Callable[[str], None], *, failed: bool) -> None:
        """Let calls of other threads that have begun come to their end, and no more begin; after an error they are stopped.

        Args:
            say: told whom the block waits for, if that takes long. failed: an error ends the block.
        """
        with self.changed:
            self.ending, self.broken = True, failed
            if not self.changed.wait_for(lambda: not self._others(), _PATIENCE):
                say(f"the end of the pruned block waits for threads that still generate: {', '.join(self._others())}")
                while not self.changed.wait_for(lambda: not self._others(), _PATIENCE):
                    pass

    def _others(self) -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread.ident != threading.get_ident() and self.busy[thread.ident or 0]]
