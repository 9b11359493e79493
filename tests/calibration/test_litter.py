"""What kills leave in the system's temporary folder: ours goes at the next start, other people's stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from multiprocessing import get_context

import pytest
from command import environment

from biaskit.calibration.ranks import sweep_torchrun
from biaskit.files import leftovers, machine, scratch

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems start workers anew")

KILLED = """
import os, signal, sys, torch
from torch.utils.data import Dataset
from biaskit.families.checkpoints.ahead import ahead

class Item:
    error = None
    def __init__(self, number):
        self.numbers = torch.full((4,), number)

class Items(Dataset):
    def __len__(self):
        return 40
    def __getitem__(self, number):
        return Item(number)

for item in ahead(Items(), workers=2, pin=False):
    if sys.argv[1] == "killed" and int(item.numbers[0]) == 5:
        print(*os.listdir(os.environ["TMPDIR"]), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
"""


def start(folder, how):
    env = environment(TMPDIR=str(folder), OMP_NUM_THREADS="1")
    return subprocess.run([sys.executable, "-c", KILLED, how], env=env, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def place(tmp_path_factory):
    """A temporary folder with a short path, as that of sockets must be."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="t") as folder:
        from pathlib import Path

        yield Path(folder)


def test_workers_of_a_killed_process_take_their_folder_along(place):
    done = start(place, "killed")
    assert done.returncode == -signal.SIGKILL
    (name,) = done.stdout.split()
    assert leftovers._TEMPORARY.fullmatch(name), "no pymp-* beside it"
    end = time.monotonic() + 10
    while any(place.iterdir()) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(place.iterdir())


def test_nothing_stays_of_a_run_that_ends_and_leftovers_of_the_dead_go(place):
    dead = get_context("fork").Process(target=int)
    dead.start()
    dead.join()
    old = place / f".biaskit.{dead.pid}.{machine()}{'0' * 8}.tmp" / "pymp-abc"
    old.mkdir(parents=True)
    kept = [
        place / f".biaskit.{os.getppid()}.{machine()}{'0' * 8}.tmp",  # of a process that lives
        place / f".biaskit.{dead.pid}.{'f' * 8}{'0' * 8}.tmp",  # of another machine, and fresh
        place / "pymp-other",
        place / "torchelastic_other",
    ]
    for path in kept:
        path.mkdir()
    done = start(place, "whole")
    assert done.returncode == 0, done.stderr
    assert sorted(place.iterdir()) == sorted(kept)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can give folders away")
def test_folders_of_other_users_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(leftovers.tempfile, "tempdir", str(tmp_path))
    foreign = tmp_path / f".biaskit.{2**22 + 1}.{machine()}{'0' * 8}.tmp"
    foreign.mkdir()
    os.chown(foreign, 12345, 12345)
    with scratch() as folder:
        assert folder.parent == tmp_path and foreign.exists()
    os.chown(foreign, 0, 0)
    leftovers._looked.clear()
    with scratch():
        assert not foreign.exists()


def test_items_come_through_where_the_path_is_too_long_for_a_socket(place):
    deep = place / ("d" * 60)
    deep.mkdir()
    assert start(deep, "whole").returncode == 0
    assert not any(deep.iterdir())


def test_torchruns_folders_are_removed_if_they_were_ours(tmp_path, monkeypatch):
    monkeypatch.setattr(leftovers.tempfile, "tempdir", str(tmp_path))
    first, second, other = (tmp_path / f"torchelastic_{name}" for name in ("first", "second", "other"))
    for folder in (first, second, other):
        (folder / "run" / "attempt_0" / "0").mkdir(parents=True)
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(first / "run" / "attempt_0" / "0" / "error.json"))
    dead = get_context("fork").Process(target=int)
    dead.start()
    dead.join()
    monkeypatch.setattr(os, "getppid", lambda: dead.pid)
    sweep_torchrun()
    assert first.exists() and (tmp_path / f".biaskit-torchrun.{dead.pid}.{machine()}").read_text() == first.name

    monkeypatch.setattr(os, "getppid", lambda: 1)  # which lives
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(second / "run" / "attempt_0" / "0" / "error.json"))
    sweep_torchrun()
    assert not first.exists() and second.exists() and other.exists()
    sweep_torchrun()
    assert second.exists(), "its torchrun lives"


@pytest.mark.parametrize("name", ["../precious", "precious", "/precious", "torchelastic_link", "torchelastic_x/../precious", ""])
def test_a_note_removes_nothing_but_folders_for_logs(tmp_path, monkeypatch, name):
    inside = tmp_path / "tmp"
    for folder in (inside, tmp_path / "precious", inside / "precious", inside / "torchelastic_x"):
        folder.mkdir()
    (inside / "torchelastic_link").symlink_to(tmp_path / "precious")
    monkeypatch.setattr(leftovers.tempfile, "tempdir", str(inside))
    monkeypatch.delenv("TORCHELASTIC_ERROR_FILE", raising=False)
    (inside / f".biaskit-torchrun.{2**22 + 1}.{machine()}").write_text(name)
    sweep_torchrun()
    assert (tmp_path / "precious").exists() and (inside / "precious").exists()
    assert not list(inside.glob(".biaskit*"))
