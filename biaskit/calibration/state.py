"""The state of an unfinished calibration on disk: written atomically, so that a kill at any moment loses at most a few seconds."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biaskit.calibration.feed import Skip, Task
from biaskit.calibration.moments import Moments
from biaskit.calibration.settings import differences
from biaskit.errors import CalibrationError
from biaskit.files import write_file


@dataclass
class Ledger:
    """Which images are done, which wait, which were skipped.

    Image number s (its slot) is filled with image s of the seeded order. A phase works through its tasks; the slots whose image was skipped
    get the next images of the order in the phase after it, until every slot is filled. Whatever the number of processes or restarts, a
    slot gets the same image.

    Attributes:
        todo: tasks of this phase that wait; None before it begins.
        failed: skips of this phase. history: skips of the phases before.
        aborted: the last run gave up because of too many skips; they are tried again.
    """

    todo: list[Task] | None = None
    failed: list[Skip] = field(default_factory=list)
    history: list[list[Skip]] = field(default_factory=list)
    aborted: bool = False

    @property
    def skipped(self) -> list[Skip]:
        """Every skip so far, in the order of slots, then of attempts."""
        return sorted((skip for phase in [*self.history, self.failed] for skip in phase), key=lambda skip: (skip.slot, skip.index))

    @property
    def n_skipped(self) -> int:
        """How many skips there are so far."""
        return len(self.failed) + sum(map(len, self.history))

    def close_phase(self) -> None:
        """The tasks of this phase are done."""
        self.history.append(self.failed)
        self.failed, self.todo = [], None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; `todo` goes with the arrays."""
        history = [[vars(skip) for skip in phase] for phase in self.history]
        return {"failed": [vars(skip) for skip in self.failed], "history": history, "aborted": self.aborted}

    @classmethod
    def restored(cls, values: Mapping[str, Any], tasks: NDArray[np.int64] | None) -> Ledger:
        """Read `to_json()` and the array of tasks back. After an abort the skipped images of the phase are put in front again."""
        todo = None if tasks is None else [(slot, index) for slot, index in tasks.tolist()]
        failed = [Skip(**skip) for skip in values["failed"]]
        history = [[Skip(**skip) for skip in phase] for phase in values["history"]]
        if values["aborted"]:
            todo, failed = [(skip.slot, skip.index) for skip in failed] + (todo or []), []
        return cls(todo, failed, history)


def save_state(path: Path, settings: Mapping[str, Any], ledger: Ledger, moments: Moments) -> None:
    """Write the state: settings, ledger and float64 statistics."""
    from safetensors.numpy import save

    arrays = moments.tensors()
    if ledger.todo is not None:
        arrays["todo"] = np.array(ledger.todo, dtype=np.int64).reshape(-1, 2)
    body = save(arrays)
    head = json.dumps({"settings": settings, "ledger": ledger.to_json()}).encode()
    write_file(path, struct.pack("<Q", len(head)) + head + body, force=True)


def load_state(path: Path, settings: Mapping[str, Any], moments: Moments) -> Ledger | None:
    """Read the state back into `moments`; None if there is none.

    Raises:
        CalibrationError: the state belongs to other settings (the message names them), or cannot be read.
    """
    from safetensors.numpy import load

    if not path.is_file():
        return None
    data = path.read_bytes()
    try:
        (length,) = struct.unpack_from("<Q", data)
        head = json.loads(data[8 : 8 + length])
        tensors: dict[str, NDArray[Any]] = {name: np.ascontiguousarray(value) for name, value in load(data[8 + length :]).items()}
        stored, ledger = head["settings"], Ledger.restored(head["ledger"], tensors.pop("todo", None))
    except Exception as error:
        raise CalibrationError(f"{path} is no state of a calibration: {error}", "delete it, or use --restart to begin anew") from error
    if differing := differences(stored, settings):
        raise CalibrationError(
            f"{path} was left by a calibration with other settings: {'; '.join(differing)}",
            "run the old command to finish it, or use --restart to begin anew",
        )
    moments.restore(tensors)
    return ledger
