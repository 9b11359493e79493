"""The labels of cells, written and read here alone: `name[@key=value…][+prior]/r0.25`.

What stands before the slash is the method, the same at every budget; behind it stands how much is kept. The unpruned model is `none`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

UNPRUNED = "none"
_PRIOR = re.compile(r"\+([A-Za-z_][\w.-]*)$")  # the name of a prior at a label's end; "1e+05" is none


@dataclass(frozen=True)
class MethodLabel:
    """A method's label taken apart.

    Attributes:
        name: registry key of a pruner, or `none`. settings: key → value as it was written. prior: name of a prior.
        other: words behind an @ that are no KEY=VALUE.

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
        """Take a label apart; nothing is looked up."""
        found = _PRIOR.search(text)
        name, *words = text[: found.start()].split("@") if found else text.split("@")
        pairs = [word.partition("=") for word in words]
        settings = {key: value for key, equals, value in pairs if key and equals}
        other = tuple(word for word, (key, equals, _) in zip(words, pairs, strict=True) if not (key and equals))
        return MethodLabel(name, settings, found.group(1) if found else None, other)

    def __str__(self) -> str:
        """The label in its one form: settings sorted by name."""
        words = [f"@{key}={self.settings[key]}" for key in sorted(self.settings)]
        return "".join([self.name, *words, "" if self.prior is None else f"+{self.prior}"])


def cell_label(method: str, retention: float) -> str:
    """Return the label of a method's cell at a share kept.

    Example:
        >>> cell_label("fastv+prior", 0.25)
        'fastv+prior/r0.25'
    """
    return f"{method}/r{retention:.6g}"


def method_of(label: str) -> str:
    """Return the method of a cell's label; that of the unpruned model has no budget.

    Example:
        >>> method_of("fastv+prior/r0.25"), method_of("none")
        ('fastv+prior', 'none')
    """
    method, slash, _ = label.rpartition("/")
    return method if slash else label
