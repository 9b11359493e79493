"""Wrap a method of a model for the time of a block: for methods that are not a module's forward, which hooks cannot reach.

Several blocks may wrap one method, in any thread, and end in any order: the model has its own method again when the last one ends.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial, update_wrapper, wraps
from typing import Any
from weakref import WeakKeyDictionary

from biaskit.errors import ModelError

Way = Callable[..., Any]
"""A wrapper, called as way(stock, *args, **kwargs), where `stock` is the method, or the method as wrapped by an outer block."""

_lock = threading.Lock()
_roads: WeakKeyDictionary[Any, dict[str, _Road]] = WeakKeyDictionary()


class _Road:
    """The replacement of one method. It reads `ways` once a call: the tuple is replaced, never changed."""

    def __init__(self, own: Any) -> None:
        """`own`: the owner's instance attribute of that name, or None if only its class has one."""
        self.own = own
        self.ways: tuple[Way, ...] = ()

    def function(self, stock: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(stock)
        def instead(*args: Any, **kwargs: Any) -> Any:
            call = stock
            for way in self.ways:
                call = _step(way, call)
            return call(*args, **kwargs)

        return instead


def _step(way: Way, call: Callable[..., Any]) -> Callable[..., Any]:
    """Return `call` wrapped by `way`, with the same signature; its attributes `way` and `stock` have the parts."""
    step = update_wrapper(partial(way, call), call)
    step.way, step.stock = way, call  # type: ignore[attr-defined]
    return step


@contextmanager
def detour(owner: Any, name: str, way: Way) -> Iterator[None]:
    """Call `way(stock, …)` in place of a method inside the block.

    Args:
        owner: the object with the method. name: its name. way: the wrapper; that of the innermost block is called first.

    Raises:
        ModelError: the owner has no such method.
    """
    with _lock:
        roads = _roads.setdefault(owner, {})
        if name not in roads:
            stock = getattr(owner, name, None)
            if stock is None:
                raise ModelError(f"{type(owner).__name__} has no {name}", "biaskit models list names what is supported")
            roads[name] = _Road(vars(owner).get(name))
            setattr(owner, name, roads[name].function(stock))
        road = roads[name]
        road.ways = (*road.ways, way)
    try:
        yield
    finally:
        with _lock:
            road.ways = tuple(other for other in road.ways if other is not way)
            if not road.ways:
                del roads[name]
                if road.own is None:
                    delattr(owner, name)
                else:
                    setattr(owner, name, road.own)
