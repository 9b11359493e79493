"""The state of a training stage on disk: complete or absent, so that a killed training can be resumed."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from biaskit.files import write_file


def keep(path: Path, state: Mapping[str, Any], parts: Mapping[str, Any]) -> None:
    """Write plain values and the state dicts of modules and optimisers in one step.

    Raises:
        FileError: the disk is full, or the file cannot be written.
    """
    buffer = io.BytesIO()
    torch.save({"state": state, **{name: part.state_dict() for name, part in parts.items()}}, buffer)
    write_file(path, buffer.getvalue())


def restore(path: Path, parts: Mapping[str, Any], device: str) -> dict[str, Any] | None:
    """Load the state dicts back into `parts` and return the plain values; None without a saved state."""
    if not path.exists():
        return None
    saved = torch.load(path, map_location=device, weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(saved[name])
    return dict(saved["state"])
