"""`biaskit WORDS` in a forked child: everything is imported already, and limits, users and streams are the child's own."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from sandbox import MEGABYTES, SECONDS, patience

_CAPABILITIES = 0x20080522  # version 3 of the kernel's structures


@dataclass
class Ended:
    """How a command ended: its exit code (negative: the signal), what it printed, and what it took. None as code: it hung."""

    code: int | None
    out: str
    err: str
    seconds: float
    megabytes: float

    @property
    def wrong(self) -> tuple[str, str]:
        """What is wrong with it, as (kind, words); ("", "") if it is sound: done, or refused in words."""
        told = f"{self.err}\n{self.out}"
        if self.code is None:
            return "hangs", f"not done within {SECONDS:g} s"
        if "Traceback" in told:
            return "tracebacks", self.err[-600:]
        if self.megabytes > MEGABYTES:
            return "heavy", f"took {self.megabytes:.0f} MB"
        if self.code not in (0, 1, 2):
            return "wrong", f"exit code {self.code}: {self.err[-300:]}"
        if self.code and not ("hint: " in told or "Usage" in told or "bad  " in told):
            return "wrong", f"no hint: {told[-300:]!r}"
        if any(ord(letter) < 32 and letter not in "\n\t" for letter in told):
            return "wrong", f"it prints what steers a terminal: {told[-300:]!r}"
        return "", ""


def command(words: Sequence[str], cwd: Path, **more: Any) -> Ended:
    """Run a command of biaskit's."""
    from biaskit.cli.app import main

    def act() -> None:
        sys.argv = ["biaskit", *words]
        main()

    return forked(act, cwd, **more)


def forked(
    act: Callable[[], None], cwd: Path, *, file_limit: int | None = None, plain_user: bool = False, stdout: int | None = None
) -> Ended:
    """Call something in a child.

    Args:
        file_limit: bytes that a file may have; beyond, writing fails as on a full disk.
        plain_user: permissions hold for it, also where this is root.
        stdout: its standard output instead of a file that is read afterwards.
    """
    pipes = [os.pipe() for _ in range(2)]  # not files: a limit on those must not reach what it prints
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        for reading, _ in pipes:
            os.close(reading)
        _live(act, cwd, file_limit, plain_user, pipes[0][1] if stdout is None else stdout, pipes[1][1])
    before = psutil.Process().memory_info().rss
    for _, writing in pipes:
        os.close(writing)
    with ThreadPoolExecutor(2) as readers:
        texts = [readers.submit(_all_of, reading) for reading, _ in pipes]
        ended, code, usage = _wait(child)
    told = [text.result() for text in texts]
    return Ended(code if ended else None, *told, time.monotonic() - began, max(0, usage.ru_maxrss * 1024 - before) / 1e6)


def _all_of(reading: int) -> str:
    with os.fdopen(reading, "rb") as stream:
        return stream.read().decode(errors="replace")


def _wait(child: int) -> tuple[bool, int, Any]:
    handle = os.pidfd_open(child)
    ended = bool(select.select([handle], [], [], patience())[0])
    os.close(handle)
    if not ended:
        os.kill(child, signal.SIGKILL)
    _, status, usage = os.wait4(child, 0)
    return ended, os.waitstatus_to_exitcode(status), usage


def _give_up_rights() -> None:
    """Give up all of root's capabilities, so that the modes of its own files hold for it."""
    header, none = (ctypes.c_uint32 * 2)(_CAPABILITIES, 0), (ctypes.c_uint32 * 6)()
    if ctypes.CDLL(None, use_errno=True).capset(header, none):
        raise OSError(ctypes.get_errno(), "capset")


def _live(act: Callable[[], None], cwd: Path, file_limit: int | None, plain_user: bool, out: int, err: int) -> None:
    """The child's part; never returns."""
    code = 99
    try:
        os.dup2(out, 1)
        os.dup2(err, 2)
        sys.stdout, sys.stderr = (open(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))  # noqa: SIM115
        os.chdir(cwd)
        if plain_user and os.geteuid() == 0:
            _give_up_rights()
        if file_limit is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
        act()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)
