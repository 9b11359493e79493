"""Disks that fill up at any byte: the old file or the whole new one is there, and the same command ends well once there is room."""

from __future__ import annotations

import shutil
import subprocess
import sys
from shlex import split

import numpy as np
import pytest
from forked import command
from runs import KEPT, make_run
from sandbox import Outcome, times

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are forked")

IMPORT = "priors import array.npy --as bias --model-type llava --layers 1"
COMMANDS = {
    "import": f"{IMPORT} -o out/p.safetensors --force",
    "export": "priors export p.safetensors out/p.json --force",
    "heatmap": "heatmap p.safetensors -o out/map.png --force",
    "scenes": "scenes -n 3 -o out/scenes --force",
    "report": "validate report run -o out/report --force --format html,md,csv,tex,json,svg",
    "calibrate": "calibrate -m demo -d generated -n 4 --layers 1,2 --batch-size 2 -o out/c.safetensors",
    "validate": "validate -m demo -t scenes-presence --questions 4 -p none,random@k=3 -r 0.25 -o out/run",
}
WITH_OLD = ("import", "export", "heatmap", "report")
"""Commands that are to overwrite what an earlier one wrote; the others begin where nothing is, and go on after a fault."""


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    made = tmp_path_factory.mktemp("disk")
    np.save(made / "array.npy", np.random.default_rng(0).random((8, 8)))
    make_run(made / "run", n=20, kept={name: KEPT[name] for name in ("random", "fastv")}, retentions=(0.25,), tasks=("scenes-where",))
    assert command(split(f"{IMPORT} -o p.safetensors"), made).code == 0
    return made


def held(folder):
    """Every file of a folder by its name, but for times of answers, which differ."""
    return {
        str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "timing.jsonl"
    }


def whole(name, work):
    """The files of an undisturbed command."""
    kept = work / "whole" / name
    if not kept.exists():
        shutil.rmtree(work / "out", ignore_errors=True)
        (work / "out").mkdir()
        ended = command(split(COMMANDS[name]), work)
        assert ended.code == 0, ended.err
        shutil.copytree(work / "out", kept)
    return held(kept)


def old_files(name, wanted, work):
    """Put what an earlier command may have left: files of the same names, with other contents."""
    shutil.rmtree(work / "out", ignore_errors=True)
    (work / "out").mkdir()
    for file in wanted if name in WITH_OLD else ():
        (work / "out" / file).parent.mkdir(parents=True, exist_ok=True)
        (work / "out" / file).write_bytes(b"old")


def judge(name, ended, wanted, work, outcome, where):
    """Note what a command left when its disk was full, and whether it ends well with room again."""
    outcome.seconds, outcome.megabytes = max(outcome.seconds, ended.seconds), max(outcome.megabytes, ended.megabytes)
    bad, text = ended.wrong
    found = held(work / "out")
    torn = [file for file in wanted if name in WITH_OLD and found.get(file) not in (b"old", wanted[file])]
    if not bad and torn:
        bad, text = "lost", f"neither the old file nor the new one: {torn}"
    if not bad and (left := [file for file in found if file.endswith(".tmp")]):
        bad, text = "wrong", f"leaves {left}"
    if not bad and ended.code == 0 and found != wanted:
        bad, text = "lost", "it says that all is well, and files differ"
    if not bad and ended.code:
        again = command(split(COMMANDS[name]), work)
        if again.code or held(work / "out") != wanted:
            bad, text = "lost", f"the same command with room: {again.code}, {again.err[-300:]}, {sorted(held(work / 'out'))}"
    if bad:
        outcome.blame(bad, f"{name}, {where}: {text}")
    elif ended.code:
        outcome.refused += 1
    else:
        outcome.read += 1


@pytest.mark.parametrize("name", COMMANDS)
def test_no_file_may_grow_beyond(name, work, random, judged):
    """The limit on the size of files: writing fails at any byte of any file."""
    wanted = whole(name, work)
    outcome = Outcome()
    largest = max(map(len, wanted.values()))
    for _ in range(times(2, 10)):
        limit = random.choice([0, random.randrange(largest), random.randrange(1, 2000)])
        old_files(name, wanted, work)
        judge(name, command(split(COMMANDS[name]), work, file_limit=limit), wanted, work, outcome, f"{limit} bytes")
    judged("faults", "full disks (a limit on files)", outcome)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_file_system_without_room(name, work, random, judged):
    """A real one in memory, where root may mount it, filled up to a few bytes."""
    wanted = whole(name, work)
    disk = work / "out"
    shutil.rmtree(disk, ignore_errors=True)
    disk.mkdir()
    size = 4 * sum(map(len, wanted.values())) + (1 << 20)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)], capture_output=True, check=False).returncode:
        pytest.skip("file systems cannot be mounted here")
    outcome = Outcome()
    try:
        for _ in range(times(1, 5)):
            for path in disk.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            for file in wanted if name in WITH_OLD else ():
                (disk / file).parent.mkdir(parents=True, exist_ok=True)
                (disk / file).write_bytes(b"old")
            room = random.randrange(0, sum(map(len, wanted.values())) + 8192)
            filler = disk / "filler"
            with filler.open("wb") as file:
                file.write(bytes(max(0, shutil.disk_usage(disk).free - room)))
            ended = command(split(COMMANDS[name]), work)
            filler.unlink()
            judge(name, ended, wanted, work, outcome, f"{room} bytes of room")
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    judged("faults", "full disks (a file system)", outcome)
