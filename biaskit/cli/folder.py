"""The folder that a command writes into."""

from __future__ import annotations

import os
from pathlib import Path

from biaskit.errors import BiaskitError


def made(folder: Path) -> Path:
    """Create a folder, if it does not exist, before any work.

    Raises:
        BiaskitError: it cannot be created or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BiaskitError(f"{folder} cannot be created: {error.strerror or error}", "choose a folder you may write to") from error
    if not os.access(folder, os.W_OK):
        raise BiaskitError(f"{folder} cannot be written to", "choose a folder you may write to")
    return folder
