"""Errors for users: every message names the offending value, every hint says what to do."""

from __future__ import annotations

import re


class BiaskitError(Exception):
    """A mistake the user can fix. The command line prints it as two lines and exits with 1; a traceback shows the hint as a note.

    Attributes:
        message: names the offending value.
        hint: what to do, in terms of the command line (`--force`); `in_python` translates it to Python (`force=True`).

    >>> error = BiaskitError("prior.png exists", "overwrite it with --force")
    >>> str(error), error.hint, error.__notes__
    ('prior.png exists', 'overwrite it with --force', ['hint: overwrite it with force=True'])
    """

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.add_note(f"hint: {in_python(hint)}")

    def __reduce__(self) -> tuple[type[BiaskitError], tuple[str, str]]:
        """Keep the hint when the error crosses a process boundary."""
        return type(self), (self.message, self.hint)


_FLAGS = frozenset({"force", "restart", "hub", "keep-indices", "ablation"})
"""Options of the command line without a value: in Python they are set to True."""
_RENAMED = {"heads": "per_head"}
"""Options whose keyword in Python has another name."""
_VALUE = r"[0-9]+(?:[.,x-][0-9]+)*|[A-Z]+(?:=[A-Z]+)?|float32|bfloat16|cpu|auto|all"
_OPTION = re.compile(rf"(?<![\w-])--(?P<name>[a-z]+(?:-[a-z]+)*)(?![\w-])(?: (?P<value>{_VALUE})(?![\w-]))?")
_CODE = re.compile(r"(`[^`]*`)")


def in_python(hint: str) -> str:
    """Return a hint with the command line's options as keywords of Python; whole commands in backticks are unchanged.

    >>> in_python("choose another --out, or overwrite it with --force")
    'choose another `out`, or overwrite it with force=True'
    >>> in_python("allow more with --max-skips 40, or use --dtype bfloat16; see `biaskit calibrate --help`")
    "allow more with max_skips=40, or use dtype='bfloat16'; see `biaskit calibrate --help`"
    """
    parts = _CODE.split(hint)  # every other part is code
    parts[::2] = [_OPTION.sub(lambda found: _keyword(found, "`"), part) for part in parts[::2]]
    parts[1::2] = [code if " --" in code else _OPTION.sub(lambda found: _keyword(found, ""), code) for code in parts[1::2]]
    return "".join(parts)


def _keyword(found: re.Match[str], quote: str) -> str:
    name, value = found["name"], found["value"]
    keyword = _RENAMED.get(name, name.replace("-", "_"))
    if name in _FLAGS:
        return f"{keyword}=True" + (f" {value}" if value else "")
    if not value:
        return f"{quote}{keyword}{quote}"
    if value.replace(".", "").isdecimal() or (value.isupper() and "=" not in value):
        return f"{keyword}={value}"
    key, equals, path = value.partition("=")
    return f"{keyword}={{{key!r}: {path}}}" if equals else f"{keyword}={value!r}"


class PriorError(BiaskitError):
    """A prior file that is broken, hostile, too new, or of another model."""


class FileError(BiaskitError):
    """A file or folder that cannot be written: it exists, is not a regular file, or the disk is full."""


class ModelError(BiaskitError):
    """A checkpoint that cannot be found, loaded or supported."""


class SourceError(BiaskitError):
    """An image source that cannot be opened or has no images left."""


class ImageSkipped(BiaskitError):
    """One image that cannot be used. Calibration replaces it with the next one and records the reason."""

    def __init__(self, message: str, hint: str = "the next image takes its place") -> None:
        super().__init__(message, hint)


class CalibrationError(BiaskitError):
    """A calibration that cannot continue. Its state is kept on disk."""


class TaskError(BiaskitError):
    """A task whose data is missing or broken, or that has no such part."""
