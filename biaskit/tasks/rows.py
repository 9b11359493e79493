"""Rows of published question files: JSON lines, JSON lists, parquet. Tasks interpret the columns."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

from biaskit.errors import TaskError

Row = Mapping[str, Any]

SUFFIXES = (".jsonl", ".json", ".parquet")
_IMAGE = "image"
_LISTS = ("data", "questions", "annotations", "rows")  # keys under which TextVQA, VQAv2 and others have their list

MAX_BYTES = 1 << 30
"""Largest size in bytes of a file of questions, and of the part of a parquet column that is unpacked at once."""


class Rows(ABC):
    """The rows of one or more files, and the encoded pictures in them."""

    @abstractmethod
    def __iter__(self) -> Iterator[Row]:
        """Iterate over the rows, without the pictures in them (see `picture`)."""

    def picture(self, number: int) -> bytes | None:
        """Return the picture in row `number`, None if rows only name their pictures."""
        return None


class TextRows(Rows):
    """The rows of a JSON or JSON-lines file (POPE's `.json` files hold JSON lines, too).

    Args:
        path: the file. key: key of the list in a JSON object, such as "annotations"; by default one of the usual ones.

    Raises:
        TaskError: it cannot be read, or holds something other than objects.
    """

    def __init__(self, path: Path, key: str = "") -> None:
        self.path = path
        self.rows = listed(read_json(path), path, key)

    def __iter__(self) -> Iterator[Row]:
        """Iterate over the rows of the file."""
        return iter(self.rows)

    def picture(self, number: int) -> bytes | None:
        """Return the picture that a row contains in base64, None if it names a file."""
        found = single(self.rows[number].get(_IMAGE), number, self.path)
        return unpacked(found) if isinstance(found, str) else None


def listed(found: Any, path: Path, key: str = "") -> list[dict[str, Any]]:
    """Return the list of rows in the contents of a JSON file; `key` as for TextRows.

    Raises:
        TaskError: it holds something other than objects.
    """
    if isinstance(found, dict):
        lists = [name for name in ((key,) if key else _LISTS) if isinstance(found.get(name), list)]
        found = found[lists[0]] if lists else None if key else [found]
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
        raise TaskError(f"{str(path)!r} does not hold a list of objects", "give JSON lines with one question each")
    return found


def single(cell: Any, number: int, path: Path) -> Any:
    """Return the picture of a cell, which may be in a list, or in the hub's {"bytes", "path"}.

    Raises:
        TaskError: there are several.
    """
    if isinstance(cell, (list, tuple)):
        if len(cell) > 1:
            raise TaskError(f"row {number} of {str(path)!r} has {len(cell)} images", "questions about one image each are understood")
        cell = cell[0] if cell else None
    if isinstance(cell, Mapping):
        held = cell.get("bytes")
        cell = held if isinstance(held, (bytes, str)) and held else cell.get("path")
    return cell


_PICTURES = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"RIFF", b"BM", b"II*\0", b"MM\0*")


def unpacked(text: str) -> bytes | None:
    """Return the picture in a base64 text, None if the text is more likely a name."""
    if len(text) < 200:
        return None
    try:
        held = base64.b64decode(re.sub(r"^data:image/[\w.+-]+;base64,", "", text[:100]) + text[100:], validate=True)
    except (binascii.Error, ValueError):
        return None
    return held if held.startswith(_PICTURES) else None


def picture_file(row: Row, number: int, path: Path) -> str | None:
    """Return the picture's name in the column `image` of a row, None if there is none. Pictures in base64 are named by their hash.

    Raises:
        TaskError: the row has several pictures.
    """
    found = single(row.get(_IMAGE), number, path)
    if not isinstance(found, str) or not found:
        return None
    held = unpacked(found)
    return found if held is None else f"base64-{hashlib.sha256(held).hexdigest()[:16]}"


def file_of(row: Row, number: int, path: Path, *names: str) -> str:
    """Return the file name of a row's picture, "" if the row has none.

    It is in `local_file`, else in the column `image`, else in the first of the columns `names`. If `image` is the hub's {"bytes", "path"},
    its path comes last, because `names` identify the picture in the data set.

    Raises:
        TaskError: the row has several pictures.
    """
    local = row.get("local_file")
    if isinstance(local, str) and local:
        return local
    image = picture_file(row, number, path)
    if image is not None and not isinstance(row.get(_IMAGE), Mapping):
        return image
    named = (str(row[name]) for name in names if isinstance(row.get(name), (str, int, float)))
    return next((name for name in named if name.strip()), image or "")


class _Item(Protocol):
    """A question: a dataclass with an id."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def id(self) -> str: ...


_AnyItem = TypeVar("_AnyItem", bound=_Item)


def distinct(found: list[_AnyItem]) -> list[_AnyItem]:
    """Return questions with unique ids: if some share an id, the index of its question is appended to every id.

    Example:
        >>> from biaskit.tasks.expressions import Expression
        >>> [one.id for one in distinct([Expression("a", "left cat", (0, 0, 9, 9), "1.jpg")] * 2)]
        ['a#0', 'a#1']
    """
    if len({one.id for one in found}) == len(found):
        return found
    return [replace(one, id=f"{one.id}#{place}") for place, one in enumerate(found)]


def read_json(path: Path) -> Any:
    """Return the contents of a JSON file, of JSON lines as a list. Only line feeds separate lines: JSON allows U+2028 inside a text.

    Raises:
        TaskError: it cannot be read; the message names the line.
    """
    from biaskit.images.regular import read_regular

    try:
        text = read_regular(path, MAX_BYTES).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror or error if isinstance(error, OSError) else error
        raise TaskError(f"cannot read {str(path)!r}: {reason}", "give a JSON or JSON-lines file") from error
    try:
        return _checked(json.loads(text), text, path)
    except RecursionError as error:
        raise TaskError(f"{str(path)!r} is nested too deeply", "give a JSON or JSON-lines file") from error
    except ValueError:
        pass
    found = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                found.append(json.loads(line))
            except (ValueError, RecursionError) as error:
                raise TaskError(f"{str(path)!r} line {number} is not JSON: {error}", "give a JSON or JSON-lines file") from error
    if not found:
        raise TaskError(f"{str(path)!r} is empty", "give a file with at least one question")
    return _checked(found, text, path)


_HALF = re.compile(r"\\u[dD][89a-fA-F]")


def _checked(found: Any, text: str, path: Path) -> Any:
    """Refuse halves of surrogate pairs, which tokenizers, files and terminals cannot handle."""
    if _HALF.search(text):
        try:
            json.dumps(found, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            what = f"{str(path)!r} has a text with half a surrogate pair, {error.object[error.start : error.end]!a}"
            raise TaskError(what, "write the character as UTF-8, or as both halves") from None
    return found


def pick(row: Row, *names: str) -> Any:
    """Return the first of these columns that a row has, None if it has none."""
    return next((row[name] for name in names if row.get(name) is not None), None)


def word(row: Row, number: int, path: Path, *names: str) -> str:
    """Return the text of the first of these columns.

    Raises:
        TaskError: the row has none of them.
    """
    found = pick(row, *names)
    if not isinstance(found, (str, int, float)) or not str(found).strip():
        raise lacking(row, number, path, *names)
    return str(found)


def lacking(row: Row, number: int, path: Path, *names: str) -> TaskError:
    """Return the error of a row that has none of these columns."""
    return TaskError(f"row {number} of {str(path)!r} has no {' or '.join(names)}", f"it has {', '.join(map(str, row))[:300] or 'nothing'}")


def whole(row: Row, number: int, path: Path, *names: str) -> int:
    """Return the whole number of the first of these columns, 0 if there is none.

    Raises:
        TaskError: it is not a whole number from 0.
    """
    found = pick(row, *names)
    if found is None:
        return 0
    try:
        count = int(found)
        sound = not isinstance(found, bool) and count == float(found) and 0 <= count < 10**9
    except (TypeError, ValueError, OverflowError):
        sound = False
    if not sound:
        raise TaskError(f"row {number} of {str(path)!r}: {names[0]} is {str(found)[:60]!r}", "sizes are whole numbers of pixels")
    return count
