"""Errors for people: every message names the offending value, every hint says what to do."""

from __future__ import annotations


class BiaskitError(Exception):
    """A mistake the user can fix. The command line prints it as two lines and exits with 1."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[type[BiaskitError], tuple[str, str]]:
        """Keep the hint when the error crosses a process boundary."""
        return type(self), (self.message, self.hint)


class PriorError(BiaskitError):
    """A prior file that is broken, hostile, too new, or of another model."""


class FileError(BiaskitError):
    """A file or folder that cannot be written: it exists, is no regular file, or the disk is full."""


class ModelError(BiaskitError):
    """A checkpoint that cannot be found, loaded or supported."""


class SourceError(BiaskitError):
    """An image source that cannot be opened or has run dry."""


class ImageSkipped(BiaskitError):
    """One image that cannot be used. Calibration replaces it with the next one and records the reason."""

    def __init__(self, message: str, hint: str = "the next image takes its place") -> None:
        super().__init__(message, hint)


class CalibrationError(BiaskitError):
    """A calibration that cannot go on. Its state is kept on disk."""


class TaskError(BiaskitError):
    """A task whose data is missing or broken, or that was asked for something it does not have."""
