"""Runs something over many hostile inputs in a forked child, with limits: success or an error of ours, within time and memory."""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from biaskit.errors import BiaskitError

SECONDS = 20.0
"""For one input, on a machine that does nothing else; see `patience`."""
MEGABYTES = 1000
"""That one input may add to the resident memory."""


def times(few: int, many: int) -> int:
    """Return how often to do something: `many` times where FAULTS=full asks for it."""
    return many if os.environ.get("FAULTS") == "full" else few


def patience() -> float:
    """Return how long to wait for one input: a machine with three times as much to do as it has cores takes three times as long."""
    return SECONDS * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


@dataclass
class Outcome:
    """What came of a number of inputs.

    Attributes:
        read: how many were accepted. refused: how many ended in an error of ours. wrong: everything else, by the input's name.
        kinds: of what is wrong: tracebacks, hangs, heavy (too much memory), lost (bytes), wrong.
        seconds, megabytes: the most that one of them took.
    """

    read: int = 0
    refused: int = 0
    wrong: list[str] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    megabytes: float = 0.0

    def blame(self, kind: str, text: str) -> None:
        """Note that something is wrong."""
        self.wrong.append(text)
        self.kinds[kind] += 1

    @property
    def total(self) -> int:
        return self.read + self.refused + len(self.wrong)


def run_all(act: Callable[[Any], object], inputs: Sequence[tuple[str, Any]]) -> Outcome:
    """Call `act` with every input, in a child that is started anew where an input kills or hangs it."""
    outcome = Outcome()
    start = 0
    while start < len(inputs):
        start = _one_child(act, inputs, start, outcome)
    return outcome


def _one_child(act: Callable[[Any], object], inputs: Sequence[tuple[str, Any]], start: int, outcome: Outcome) -> int:
    """Return the number of the input to go on with."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _work(act, inputs, start, writing)  # never returns
    os.close(writing)
    pending = b""
    number = start
    try:
        while number < len(inputs):
            if not select.select([reading], [], [], patience())[0]:
                outcome.blame("hangs", f"{inputs[number][0]}: not done within {SECONDS:g} s")
                return number + 1
            block = os.read(reading, 1 << 16)
            if not block:
                outcome.blame("wrong", f"{inputs[number][0]}: the process died")
                return number + 1
            *lines, pending = (pending + block).split(b"\n")
            for line in lines:
                _count(json.loads(line), inputs[number][0], outcome)
                number += 1
        return number
    finally:
        os.close(reading)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _count(told: dict[str, Any], name: str, outcome: Outcome) -> None:
    outcome.seconds, outcome.megabytes = max(outcome.seconds, told["seconds"]), max(outcome.megabytes, told["megabytes"])
    if told["result"] not in ("read", "refused"):
        outcome.blame("tracebacks", f"{name}: {told['result']}")
    elif told["megabytes"] > MEGABYTES:
        outcome.blame("heavy", f"{name}: took {told['megabytes']:.0f} MB")
    elif told["result"] == "read":
        outcome.read += 1
    else:
        outcome.refused += 1


def _memory(key: str) -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) / 1024


def _work(act: Callable[[Any], object], inputs: Sequence[tuple[str, Any]], start: int, writing: int) -> None:
    """The child's part. Its address space may grow by two gigabytes: what wants more must not take the machine along."""
    try:
        most = int(_memory("VmSize") * 2**20) + (2 << 30)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        for _, given in inputs[start:]:
            Path("/proc/self/clear_refs").write_text("5")  # the peak of the resident memory begins anew
            before, begun = _memory("VmRSS"), time.monotonic()
            result = _result(act, given)
            told = {"result": result, "seconds": time.monotonic() - begun, "megabytes": _memory("VmHWM") - before}
            os.write(writing, json.dumps(told).encode() + b"\n")
    finally:
        os._exit(0)


def _result(act: Callable[[Any], object], given: Any) -> str:
    try:
        act(given)
    except BiaskitError as error:
        sound = error.message and error.hint and len(error.message) + len(error.hint) < 5000
        return "refused" if sound else f"an error of {len(error.message)} characters, hint {error.hint[:80]!r}"
    except BaseException as error:
        places = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]
        return f"{type(error).__name__}: {str(error)[:300]} at {' '.join(places[-6:])}"
    return "read"
