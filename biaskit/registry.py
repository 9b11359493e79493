"""Names that users type: plug-ins of a registry, keywords of public functions, the nearest known name, labels of methods."""

from __future__ import annotations

import difflib
import functools
import importlib
import importlib.util
import inspect
import numbers
import os
import pkgutil
import re
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Generic, ParamSpec, TypeVar

from biaskit.errors import BiaskitError

T = TypeVar("T")
C = TypeVar("C", bound=type)
P = ParamSpec("P")
R = TypeVar("R")


class Registry(Generic[T]):
    """Names → plug-ins of one kind.

    Built-ins are the modules of `package`, imported on first use; third parties declare an entry point in the group of the same name
    (`biaskit.families`, `biaskit.pruners`, …). Both call `register` when they are imported.

    Attributes:
        kind: what the plug-ins are, for messages. package: where the built-ins live.
    """

    def __init__(self, kind: str, package: str, make: Callable[[Any], T] | None = None, base: type | None = None) -> None:
        """Make an empty registry.

        Args:
            kind, package: see above. make: turns a registered class into the stored item; by default, an instance of it.
            base: what every plug-in must be a subclass of.
        """
        self.kind = kind
        self.package = package
        self._base = base
        self._make: Callable[[Any], T] = make or (lambda cls: cls())
        self._items: dict[str, T] = {}
        self._classes: dict[str, type] = {}
        self._built_in = self._loaded = False
        self._importing = False
        self._lock, self._lock_of_points = threading.RLock(), threading.RLock()

    def register(self, *names: str) -> Callable[[C], C]:
        """Class decorator: make the class known under `names`.

        Raises:
            ValueError: a name is taken by another class.
            TypeError: it is not a subclass of `base`.
        """

        def add(cls: C) -> C:
            for name in names:
                other = self._classes.get(name, cls)
                if other is not cls:
                    raise ValueError(f"{self.kind} {name!r} is already {other.__qualname__}")
            if self._base is not None and not (isinstance(cls, type) and issubclass(cls, self._base)):
                raise TypeError(f"{getattr(cls, '__qualname__', cls)!r} is not a {self._base.__name__}")
            item = self._make(cls)
            for name in names:
                self._classes[name], self._items[name] = cls, item
            return cls

        return add

    def _load(self) -> None:
        """Import everything once; after an interrupt or an error the next call begins again. Other threads wait for all of it."""
        if self._loaded:
            return
        with self._lock:
            self._load_built_in()
        if getattr(_thread, "plug_in", False):  # called by a plug-in during its own import: the thread that loads it waits for it
            return
        with self._lock_of_points:
            if not self._loaded:
                self._load_points()
                self._loaded = True

    def _load_built_in(self) -> None:
        if self._built_in or self._importing:  # importing: called by a built-in during its own import
            return
        self._importing = True
        try:
            package = importlib.import_module(self.package)
            for module in pkgutil.iter_modules(package.__path__):
                before = dict(self._items), dict(self._classes)
                try:
                    importlib.import_module(f"{self.package}.{module.name}")
                except BaseException:  # also an interrupt: the module is imported again next time, with new classes
                    self._items, self._classes = before
                    raise
            self._built_in = True
        finally:
            self._importing = False

    def _load_points(self) -> None:
        for point in entry_points(group=self.package):
            before = dict(self._items), dict(self._classes)
            why = _loaded(point)
            if why:  # a broken plug-in must not break the toolkit
                self._items, self._classes = before
                warnings.warn(f"{self.kind} plug-in {point.name!r} ({point.value}) failed to load: {why}; it is left out", stacklevel=4)

    def names(self) -> list[str]:
        """Return every known name, sorted."""
        self._load()
        return sorted(self._items)

    def __iter__(self) -> Iterator[tuple[str, T]]:
        """Iterate over (name, plug-in), sorted by name."""
        return iter((name, self._items[name]) for name in self.names())

    def __contains__(self, name: object) -> bool:
        """Whether `name` is known."""
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


def written_names(package: str) -> list[str]:
    """Return the names of a registry's plug-ins, read from the source, and those of entry points, without importing any.

    >>> "d2pruner" in written_names("biaskit.pruners")
    True
    """
    spec = importlib.util.find_spec(package)
    names = [point.name for point in entry_points(group=package)]
    for folder in spec.submodule_search_locations or () if spec is not None else ():
        for file in sorted(Path(folder).rglob("*.py")):
            for call in re.findall(r"^@\w+\.register\(([^)]*)\)", file.read_text(encoding="utf-8"), flags=re.MULTILINE):
                names += re.findall(r"\"([^\"]+)\"", call)
    return sorted({*names})


PATIENCE = 60.0
"""Seconds that the import of a third party's plug-in may take."""

_thread = threading.local()
"""`plug_in`: whether this thread is one that imports a plug-in."""


def _loaded(point: EntryPoint) -> str:
    """Import an entry point; return why it failed, or "". One that hangs stays in its thread."""
    failed: list[str] = []

    def load() -> None:
        _thread.plug_in = True
        try:
            point.load()
        except BaseException as error:  # also sys.exit() in a module
            failed.append(f"{type(error).__name__}: {error}")

    thread = threading.Thread(target=load, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return f"it was not imported within {PATIENCE:g} s" if thread.is_alive() else "".join(failed)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a hint: the known names nearest to `name`, or all of them.

    >>> did_you_mean("fastw", ["dart", "fastv"]), did_you_mean("xyz", ["dart", "fastv"])
    ('did you mean fastv?', 'known: dart, fastv')
    """
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}"


_PLAIN: dict[str, tuple[type | tuple[type, ...], str]] = {
    "int": (numbers.Integral, "a whole number"),
    "float": (numbers.Real, "a number"),
    "bool": (bool, "True or False"),
    "str": (str, "a text"),
    "os.PathLike[str]": (os.PathLike, "a path"),
    "None": (type(None), "None"),
}
"""Annotation → type of its values, and its name in messages."""


def named_arguments(function: Callable[P, R]) -> Callable[P, R]:
    """Decorator of public functions: a call that does not fit the signature raises a BiaskitError instead of a TypeError.

    Type checkers see the original signature. The types of parameters that are declared with numbers, texts, bools and None only are
    checked too.

    Raises:
        BiaskitError: an unknown keyword (the hint offers the nearest), a missing argument, or a plain value of another type.

    >>> @named_arguments
    ... def draw(path: str, *, width: int = 3) -> str:
    ...     return path * width
    >>> try:
    ...     draw("a", widht=2)
    ... except BiaskitError as error:
    ...     print(error, error.hint, sep="; ")
    draw has no keyword 'widht'; did you mean width?
    """
    signature = inspect.signature(function)
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in signature.parameters.values())
    plain = {name: words for name, parameter in signature.parameters.items() if (words := _plain_words(parameter.annotation))}

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        name = function.__name__
        for given in kwargs if not open_ended else ():
            if given not in signature.parameters:
                raise BiaskitError(f"{name} has no keyword {given!r}", did_you_mean(given, signature.parameters))
        try:
            values = signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise BiaskitError(f"{name}: {error}", f"its arguments are {', '.join(signature.parameters)}") from None
        for given, words in plain.items():
            if given in values and not any(_is_plain(values[given], word) for word in words):
                wanted = " or ".join(_PLAIN[word][1] for word in words)
                raise BiaskitError(f"{given} is {values[given]!r}, not {wanted}", f"see help(biaskit.{name})")
        return function(*args, **kwargs)

    return checked


def _plain_words(annotation: object) -> list[str]:
    """Split an annotation such as `int | None` into its words; empty if it names other than plain types."""
    words = [word.strip() for word in annotation.split("|")] if isinstance(annotation, str) else []
    return words if all(word in _PLAIN for word in words) else []


def _is_plain(value: object, word: str) -> bool:
    if isinstance(value, bool):
        return word == "bool"
    return isinstance(value, _PLAIN[word][0])


_PRIOR = re.compile(r"\+([A-Za-z_][\w.-]*)$")  # the name of a prior at a label's end; not "1e+05"


@dataclass(frozen=True)
class MethodLabel:
    """A parsed method label, `name[@key=value…][+prior]`; nothing is looked up.

    Attributes:
        name: registry key of a pruner, or `none`. settings: key → value as it was written. prior: name of a prior.
        other: words after an @ that are not KEY=VALUE.

    Example:
        >>> MethodLabel.read("d2pruner@theta=0.9@alpha=1e+05+coco")
        MethodLabel(name='d2pruner', settings={'theta': '0.9', 'alpha': '1e+05'}, prior='coco', other=())
        >>> str(MethodLabel.read("d2pruner@theta=0.9@alpha=1e+05+coco"))
        'd2pruner@alpha=1e+05@theta=0.9+coco'
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    prior: str | None = None
    other: tuple[str, ...] = ()

    @staticmethod
    def read(text: str) -> MethodLabel:
        """Parse a label."""
        found = _PRIOR.search(text)
        name, *words = text[: found.start()].split("@") if found else text.split("@")
        pairs = [word.partition("=") for word in words]
        settings = {key: value for key, equals, value in pairs if key and equals}
        other = tuple(word for word, (key, equals, _) in zip(words, pairs, strict=True) if not (key and equals))
        return MethodLabel(name, settings, found.group(1) if found else None, other)

    def __str__(self) -> str:
        """The label in canonical form: settings sorted by name."""
        words = [f"@{key}={self.settings[key]}" for key in sorted(self.settings)]
        return "".join([self.name, *words, "" if self.prior is None else f"+{self.prior}"])
