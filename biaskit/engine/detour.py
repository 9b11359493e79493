"""Methods of a model that are called by another way for the time of a block: for what is no module, so that a hook cannot see it.

Several blocks may stand around one method, in any thread, and end in any order: the model has its own method again when the last one ends.
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
"""Called as way(stock, *args, **kwargs), where `stock` is the method, or what an outer block made of it."""

_lock = threading.Lock()
_roads: WeakKeyDictionary[Any, dict[str, _Road]] = WeakKeyDictionary()


class _Road:
    """What stands in place of one method. Reads `ways` once a call: they are replaced, never changed."""

    def __init__(self, own: Any) -> None:
        """Take what the owner itself has of that name, not its class; None if nothing."""
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
    """One way around a method, with the method's signature; `way` and `stock` say what it is made of."""
    step = update_wrapper(partial(way, call), call)
    step.way, step.stock = way, call  # type: ignore[attr-defined]
    return step


@contextmanager
def detour(owner: Any, name: str, way: Way) -> Iterator[None]:
    """Have `way(stock, …)` called in place of a method inside the block.

    Args:
        owner: whose method. name: its name. way: the innermost block's comes first.

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
