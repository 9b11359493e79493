"""One registry class for every kind of plug-in: built-ins and third-party entry points come in by the same door."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
import warnings
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

from biaskit.errors import BiaskitError

T = TypeVar("T")
C = TypeVar("C", bound=type)


class Registry(Generic[T]):
    """Names → plug-ins of one kind.

    Built-ins are the modules of `package`, imported on first use; third parties announce an entry point in the group of the same name
    (`biaskit.families`, `biaskit.pruners`, …). Both call `register` while they are imported.

    Attributes:
        kind: what the plug-ins are, for messages. package: where the built-ins live.
    """

    def __init__(self, kind: str, package: str, make: Callable[[Any], T] | None = None) -> None:
        """Make an empty registry; `make` turns a registered class into what is kept: by default, one instance of it."""
        self.kind = kind
        self.package = package
        self._make: Callable[[Any], T] = make or (lambda cls: cls())
        self._items: dict[str, T] = {}
        self._classes: dict[str, type] = {}
        self._loaded = False

    def register(self, *names: str) -> Callable[[C], C]:
        """Class decorator: make the class known under `names`.

        Raises:
            ValueError: a name is taken by another class.
        """

        def add(cls: C) -> C:
            item = self._make(cls)
            for name in names:
                held = self._classes.setdefault(name, cls)
                if held is not cls:
                    raise ValueError(f"{self.kind} {name!r} is already {held.__qualname__}")
                self._items[name] = item
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
        raise BiaskitError(f"unknown {self.kind} {name!r}", did_you_mean(name, known))


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a hint: the known names nearest to `name`, or all of them."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}"
