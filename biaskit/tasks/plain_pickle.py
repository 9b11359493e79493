"""Read pickles of plain containers, texts and numbers. A pickle is a program, so its operations, time and memory are limited here."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

from biaskit.errors import TaskError
from biaskit.images.regular import read_regular

MAX_BYTES = 128 << 20
"""Largest size of a file in bytes. RefCOCO's largest has about 40 MB."""
MAX_STEPS = 12_000_000
"""Most opcodes. RefCOCO's 142,000 sentences take about 30 each, as do its 50,000 refs."""
MAX_HELD = 4_000_000
"""Most containers, and most slots of the memo."""

_SETS = {(module, name): kind for module in ("builtins", "__builtin__") for name, kind in (("set", set), ("frozenset", frozenset))}
_ATOMS = (str, int, float, bytes, type(None))

# Byte arrays are allocated before their bytes are read; the other opcodes build objects, which are not plain values.
_REFUSED = frozenset(b"\x96\x97\x98boi\x81\x92")
_MAKES = frozenset(b"]}\x8fld\x91t\x85\x86\x87R")
_COPIES = {code: pickle._Unpickler.dispatch[code] for code in b"ghj2"}
_KEYED = {code: pickle._Unpickler.dispatch[code] for code in b"su\x90\x91dR"}
_AFTER_MARK = frozenset(b"u\x90\x91d")


class _Steps:
    """The opcodes of a reader, each checked and counted before it runs."""

    def __init__(self, reader: _Plain) -> None:
        self.reader: Any = reader
        self.table = pickle._Unpickler.dispatch
        self.steps = self.held = self.code = 0

    def __getitem__(self, code: int) -> Callable[[Any], None]:
        self.steps += 1
        self.code = code
        self.held += code in _MAKES
        if self.steps > MAX_STEPS or max(self.held, len(self.reader.memo)) > MAX_HELD:
            raise pickle.UnpicklingError("it holds more than refs ever do")
        if code in _REFUSED or code not in self.table:
            raise pickle.UnpicklingError(f"it has the opcode {bytes([code])!r}")
        if code in _KEYED:
            _check_keys(code, self.reader.stack)
        return _copy if code in _COPIES else self.table[code]


class _Plain(pickle._Unpickler):
    """Builds containers, texts and numbers; any other name in a pickle is refused before it is used.

    It uses the reader in Python, not in C: ten bytes that name a high memo slot make the latter allocate gigabytes. RefCOCO: about 10 s.

    Attributes:
        shares: True if a container occurs in more than one place.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data), encoding="latin1")
        self.shares = False
        self.dispatch = _Steps(self)  # type: ignore[assignment,misc]  # `load` only looks opcodes up in it

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _SETS[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module[:60]}.{name[:60]}") from None

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("it refers to objects outside of itself")


def _copy(reader: Any) -> None:
    """Push a value of the memo, or the last one, onto the stack again, and note if it is a container."""
    _COPIES[reader.dispatch.code](reader)
    if reader.stack and isinstance(reader.stack[-1], (list, tuple, dict, set, frozenset)):
        reader.shares = True


def _check_keys(code: int, stack: list[Any]) -> None:
    """Refuse keys that are containers: hashing nested tuples can take exponential time, and refs have none."""
    if code == ord("s"):
        keys = stack[-2:-1]
    elif code in _AFTER_MARK:
        keys = stack[::2] if code in b"ud" else stack
    else:  # the call of a set
        made, given = stack[-2], stack[-1]
        if made not in (set, frozenset) or type(given) is not tuple or len(given) > 1:
            raise pickle.UnpicklingError("it calls something")
        keys = list(given[0]) if given else []
    if not all(isinstance(key, _ATOMS) for key in keys):
        raise pickle.UnpicklingError("a key is neither text nor number")


def _nodes(root: Any, most: int) -> int:
    """Count the values inside a value, those in shared containers once per occurrence; at most about `most`.

    Raises:
        UnpicklingError: there are more, or a container holds itself.
    """
    counts: dict[int, int] = {}
    open_: set[int] = set()
    waiting: list[tuple[Any, bool]] = [(root, False)]
    while waiting:
        value, done = waiting.pop()
        inner = list(value.values()) if isinstance(value, dict) else value
        if id(value) in counts:
            continue
        if done:
            counts[id(value)] = 1 + sum(counts.get(id(one), 1) for one in inner)
            open_.discard(id(value))
            if counts[id(value)] > most:
                raise pickle.UnpicklingError("containers that it shares make far more of it than the file has")
            continue
        if id(value) in open_:
            raise pickle.UnpicklingError("a container holds itself")
        open_.add(id(value))
        waiting.append((value, True))
        waiting += [(one, False) for one in inner if isinstance(one, (list, tuple, dict, set, frozenset))]
    return counts[id(root)]


def read_plain_pickle(path: Path) -> Any:
    """Return the value of a pickle of plain containers, texts and numbers; nothing in it is executed.

    Raises:
        TaskError: it is damaged, larger than any published one, or refers to anything else.
    """
    hint = "refs(unc).p holds lists, dicts, texts and numbers only: download it again from where it was published"
    try:
        data = read_regular(path, MAX_BYTES)
        reader = _Plain(data)
        found = reader.load()
        # without shared containers every value takes at least a byte of the file
        if reader.shares and isinstance(found, (list, tuple, dict, set, frozenset)):
            _nodes(found, len(data))
    except OSError as error:
        why = error.strerror or error
        raise TaskError(f"cannot read {str(path)!r}: {why}", "give the directory that holds refs(unc).p") from error
    except Exception as error:  # a hostile pickle can raise any error
        raise TaskError(f"{str(path)!r} is refused: {str(error)[:300] or type(error).__name__}", hint) from error
    return found
