"""The labels of cells: `name[@key=value…][+prior]/r0.25`. They are written and read only here.

The part before the slash is the method, the same at every budget; after it comes the retention. The unpruned model is `none`.
"""

from __future__ import annotations

UNPRUNED = "none"


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
