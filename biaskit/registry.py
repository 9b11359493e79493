"""One registry class for every kind of plug-in: built-ins and third-party entry points come in by the same door."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from biaskit.errors import BiaskitError

T = TypeVar("T")


class Registry(Generic[T]):
    """Names → plug-ins of one kind.

    Built-ins are the modules of `package`, imported on first use; third parties announce an entry point in the group of the same name
    (`biaskit.families`, `biaskit.pruners`, …). Both call `register` while they are imported.
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self.package = package
        self._items: dict[str, T] = {}
        self._loaded = False

    def register(self, *names: str) -> Callable[[type], type]:
        """Class decorator: make one instance of the class known under `names`.

        Raises:
            ValueError: a name is taken by another class.
        """

        def add(cls: type) -> type:
            item: T = cls()
            for name in names:
                held = self._items.setdefault(name, item)
                if type(held) is not cls:
                    raise ValueError(f"{self.kind} {name!r} is already {type(held).__qualname__}")
            return cls

        return add

    def _load(self) -> None:
        if self._loaded:
            return
        self._loaded = True
        package = importlib.import_module(self.package)
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{self.package}.{module.name}")
        for point in entry_points(group=self.package):
            try:
                point.load()
            except Exception as error:  # a broken plug-in must not take the toolkit down with it
                warnings.warn(f"{self.kind} plug-in {point.name!r} ({point.value}) failed to load: {error}", stacklevel=3)

    def names(self) -> list[str]:
        """Return every known name, sorted."""
        self._load()
        return sorted(self._items)

    def __iter__(self) -> Iterator[tuple[str, T]]:
        """Iterate over (name, plug-in), sorted by name."""
        return iter((name, self._items[name]) for name in self.names())

    def __contains__(self, name: object) -> bool:
        """Tell whether `name` is known."""
        return name in self.names()

    def get(self, name: str) -> T:
        """Return the plug-in called `name`.

        Raises:
            BiaskitError: nothing has that name; the hint offers the nearest ones.
        """
        known = self.names()
        if name in self._items:
            return self._items[name]
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}"
        raise BiaskitError(f"unknown {self.kind} {name!r}", hint)
