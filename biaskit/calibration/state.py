"""The state of an unfinished calibration on disk: written atomically, so that a kill at any moment loses at most a few seconds."""

from __future__ import annotations

import json
import re
import secrets
import struct
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biaskit.calibration.feed import Skip, Task
from biaskit.calibration.statistics import Statistics
from biaskit.errors import CalibrationError
from biaskit.files import sweep, write_file
from biaskit.text import differences

_FORMAT = 2


@dataclass
class Ledger:
    """The images that were counted, and those that could not be used.

    Attributes:
        counted: tasks whose images are in the statistics. skips: the others.
        aborted: True if the run stopped because of too many skips.
    """

    counted: set[Task] = field(default_factory=set)
    skips: list[Skip] = field(default_factory=list)
    aborted: bool = False

    @property
    def done(self) -> set[Task]:
        """Every task that was tried."""
        return self.counted | {(skip.slot, skip.index) for skip in self.skips}

    def merge(self, other: Ledger) -> None:
        """Add another process's ledger."""
        self.counted |= other.counted
        self.skips += other.skips
        self.aborted |= other.aborted

    def retry(self, tasks: Container[Task]) -> None:
        """Forget that some tasks were skipped."""
        self.skips = [skip for skip in self.skips if (skip.slot, skip.index) not in tasks]
        self.aborted = False


def in_order(skips: Sequence[Skip]) -> list[Skip]:
    """Return skips in the order of slots, then of attempts."""
    return sorted(skips, key=lambda skip: (skip.slot, skip.index))


@dataclass
class _State:
    """One process's file."""

    path: Path
    name: str
    holds: list[str]
    settings: Mapping[str, Any]
    ledger: Ledger
    tensors: dict[str, NDArray[Any]]


class States:
    """The files of a calibration's state: `OUT.partial` of the first process, `OUT.partial.R` of process R.

    Each file contains a unique name. When the first process resumes, it merges the other files, and its own file lists their names: a file
    that could not be deleted because the process was killed is not counted twice.

    Args:
        out: the result's file; None keeps nothing. rank: of this process.
    """

    def __init__(self, out: Path | None, rank: int) -> None:
        self.out, self.name, self.holds = out, secrets.token_hex(8), list[str]()
        self.mine = None if out is None else out.with_name(f"{out.name}.partial{f'.{rank}' if rank else ''}")

    def files(self) -> list[Path]:
        """Return the existing files of all processes."""
        if self.out is None or not self.out.parent.is_dir():
            return []
        fits = re.compile(re.escape(self.out.name) + r"\.partial(\.\d+(of\d+)?)?")
        return sorted(path for path in self.out.parent.iterdir() if fits.fullmatch(path.name) and path.is_file())

    def settings(self) -> list[Mapping[str, Any]]:
        """Return the settings of each file."""
        return [_read(path).settings for path in self.files()]

    def take(self, settings: Mapping[str, Any], counts: Statistics) -> Ledger:
        """Read all files into `counts`, and replace them by one.

        Raises:
            CalibrationError: they belong to other settings (the message names them), or cannot be read.
        """
        if self.out is not None:
            sweep(self.out.parent)
        found = [_read(path) for path in self.files()]
        held = {name for state in found for name in state.holds}
        ledger = Ledger()
        for state in found:
            if differing := differences(state.settings, settings):
                raise CalibrationError(
                    f"{state.path} was left by a calibration with other settings: {'; '.join(differing)}",
                    "run the old command to finish it, or use --restart to begin again",
                )
            if state.name in held:
                continue
            if twice := ledger.counted & state.ledger.counted:
                raise CalibrationError(f"{state.path} has {len(twice)} images that another state has, too", "use --restart to begin again")
            ledger.merge(state.ledger)
            counts.merge(counts.alike().restore(state.tensors))
        self.holds = sorted(held | {state.name for state in found})
        if [state.path for state in found] not in ([], [self.mine]):
            self.write(settings, ledger, counts)
            for state in found:
                if state.path != self.mine:
                    state.path.unlink(missing_ok=True)
        return ledger

    def write(self, settings: Mapping[str, Any], ledger: Ledger, counts: Statistics) -> None:
        """Write this process's file: settings, ledger and statistics."""
        if self.mine is None:
            return
        from safetensors.numpy import save

        body = save({**counts.tensors(), "counted": np.array(sorted(ledger.counted), dtype=np.int64).reshape(-1, 2)})
        known = {"skips": [vars(skip) for skip in ledger.skips], "aborted": ledger.aborted, "settings": settings}
        head = json.dumps({"format": _FORMAT, "name": self.name, "holds": self.holds, **known}).encode()
        write_file(self.mine, struct.pack("<Q", len(head)) + head + body, force=True)

    def clear(self) -> None:
        """Delete all files."""
        for path in self.files():
            path.unlink(missing_ok=True)


def _read(path: Path) -> _State:
    from safetensors.numpy import load

    data = path.read_bytes()
    try:
        (length,) = struct.unpack_from("<Q", data)
        head = json.loads(data[8 : 8 + length])
        if head.get("format") != _FORMAT:
            raise ValueError("another version of biaskit wrote it")
        tensors: dict[str, NDArray[Any]] = {name: np.ascontiguousarray(value) for name, value in load(data[8 + length :]).items()}
        counted = {(slot, index) for slot, index in tensors.pop("counted").tolist()}
        ledger = Ledger(counted, [Skip(**skip) for skip in head["skips"]], head["aborted"])
        return _State(path, head["name"], head["holds"], head["settings"], ledger, tensors)
    except Exception as error:
        raise CalibrationError(f"{path} is not a state of a calibration: {error}", "delete it, or use --restart to begin again") from error
