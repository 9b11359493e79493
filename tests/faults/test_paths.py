"""Paths that are not what a command needs, and streams that take nothing: done, or refused in words; what was there before stays."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import tempfile
from pathlib import Path
from shlex import split

import numpy as np
import pytest
from forked import command
from PIL import Image
from runs import KEPT, make_run
from sandbox import Outcome, times

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are forked, and rights given up")

IMPORT = "--as bias --model-type llava --layers 1"
SHORT = "-m demo -n 1 --layers 1"
READS = {
    ".safetensors": [
        "heatmap {odd}", "heatmap {prior} {odd} -o {free}.png", "priors show {odd}", "priors verify {odd} {prior}",
        "priors diff {odd} {prior}", "priors diff {prior} {odd}", "priors export {odd} {free}.npy",
        "prune -m demo -i {picture} --prior {odd} -p fastv+prior --k 1 --max-new-tokens 1",
    ],
    ".npy": [f"priors import {{odd}} {IMPORT} -o {{free}}.safetensors"],
    ".pt": [f"priors import {{odd}} {IMPORT} -o {{free}}.safetensors"],
    ".png": ["prune -m demo -i {odd} --max-new-tokens 1"],
    ".json": [
        f"calibrate {SHORT} -d {{odd}} -o {{free}}.safetensors",
        "validate -m demo -t refcoco -d {odd} --images {pictures} -p none -o {free}",
    ],
    ".jsonl": ["validate -m demo -t vqa -d {odd} --images {pictures} -p none -o {free}"],
    ".txt": [f"calibrate {SHORT} -d generated --prompt {{odd}} -o {{free}}.safetensors"],
    "": [
        "models inspect {odd}", "models check {odd}", "prune -m {odd} -i {picture}", "validate report {odd}", "validate analyse {odd}",
        "calibrate -m {odd} -d generated -n 1 -o {free}.safetensors", f"calibrate {SHORT} -d {{odd}} -o {{free}}.safetensors",
        "validate -m demo -t vqa -d {questions} --images {odd} -p none --questions 1 -o {free}",
        "study transfer -m demo -d {odd} -d generated -n 8 --layers 1 -o {free}",
    ],
}  # fmt: skip
WRITES = {
    ".png": [
        "heatmap {prior} -o {odd}", "priors diff {prior} {prior} -o {odd}", "prune -m demo -i {picture} --max-new-tokens 1 --overlay {odd}",
    ],
    ".safetensors": [f"priors import {{array}} {IMPORT} -o {{odd}}", f"calibrate {SHORT} -d generated -o {{odd}}"],
    ".npy": ["priors export {prior} {odd}"],
    ".json": ["priors export {prior} {odd}"],
    "": [
        "scenes -n 1 -o {odd}", "validate -m demo -t scenes-presence --questions 1 -p none -o {odd}", "validate analyse {run} -o {odd}",
        "validate report {run} --format json -o {odd}", "bench select --tokens 32 --dim 8 -p random --repeats 1 -o {odd}",
        "study enough -m demo -d generated -n 8 --layers 1 -o {odd}",
    ],
}  # fmt: skip


def circle(path):
    path.symlink_to(path.name)


def dangling(path):
    path.symlink_to("nothing/here")


def folder(path):
    path.mkdir()


def below_a_file(path):
    path.touch()
    return path / f"below{path.suffix}"


def long_name(path):
    return path.with_name("ä" * 140 + path.suffix)


def pipe(path):
    os.mkfifo(path)


def bound_socket(path):
    with socket.socket(socket.AF_UNIX) as made:
        os.chdir(path.parent)  # names of sockets are short
        made.bind(path.name)


def empty(path):
    path.touch()


def noise(path):
    path.write_bytes(bytes(range(256)) * 40)


def closed(path):
    path.write_bytes(b"x")
    path.chmod(0)


def in_a_closed_folder(path):
    path.mkdir(mode=0o000)
    return path / f"inside{path.suffix}"


def read_only_folder(path):
    path.mkdir(mode=0o555)
    return path / f"inside{path.suffix}"


def hostile_name(path):
    return path.with_name(f"a\x1b[31m\u202e\n=1 'b{path.suffix}")


def no_utf_8(path):
    return path.with_name(f"a\udcff\udc80b{path.suffix}")


def nothing(path):
    return Path()


def zeros(path):
    return Path("/dev/zero")


COMMON = [circle, dangling, folder, below_a_file, long_name, pipe, bound_socket, empty, in_a_closed_folder, hostile_name, no_utf_8, nothing]
ODD_READS, ODD_WRITES = [*COMMON, noise, closed, zeros], [*COMMON, read_only_folder]
FAULTS = [
    (words, suffix, kind)
    for table, kinds in ((READS, ODD_READS), (WRITES, ODD_WRITES))
    for suffix, group in table.items()
    for words in group
    for kind in kinds
]


@pytest.fixture(scope="module")
def place():
    """A folder with one good file of each kind; its path is short, for sockets."""
    made = Path(tempfile.mkdtemp())
    here = Path.cwd()
    (made / "pictures").mkdir()
    Image.new("RGB", (64, 48), (200, 60, 20)).save(made / "pictures" / "a.png")
    (made / "q.jsonl").write_text('{"question": "what?", "answer": "x", "image": "a.png"}\n')
    np.save(made / "array.npy", np.random.default_rng(0).random((6, 6)))
    make_run(made / "run", n=8, kept={name: KEPT[name] for name in ("random", "fastv")}, retentions=(0.25,), tasks=("scenes-where",))
    ended = command(split(f"priors import {made}/array.npy {IMPORT} -o {made}/prior.safetensors"), made)
    assert ended.code == 0, ended.err
    try:
        yield made
    finally:
        os.chdir(here)
        for path in made.rglob("*"):
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o700)
        shutil.rmtree(made)


def good(place):
    return {
        "prior": place / "prior.safetensors", "array": place / "array.npy", "picture": place / "pictures" / "a.png",
        "pictures": place / "pictures", "questions": place / "q.jsonl", "run": place / "run",
    }  # fmt: skip


def held(place):
    """Every file of a folder, but for those that faults are made of."""
    return {path: path.read_bytes() for path in place.rglob("*") if path.is_file() and "faults" not in path.parts}


def test_paths(place, random, judged):
    chosen = random.sample(FAULTS, min(times(30, 230), len(FAULTS)))
    before = held(place)
    outcome = Outcome()
    for number, (words, suffix, kind) in enumerate(chosen):
        work = place / "faults" / str(number)
        work.mkdir(parents=True)
        odd = kind(work / f"odd{suffix}") or work / f"odd{suffix}"
        given = [word.format(odd=odd, free=work / "free", **good(place)) for word in split(words)]
        barred = kind in (closed, in_a_closed_folder, read_only_folder)
        ended = command(given, work, plain_user=barred)
        outcome.seconds, outcome.megabytes = max(outcome.seconds, ended.seconds), max(outcome.megabytes, ended.megabytes)
        bad, text = ended.wrong
        left = [path.name for path in work.rglob("*") if path.name.endswith(".tmp")] if not barred else []
        if bad:
            outcome.blame(bad, f"{kind.__name__}: {words}: {text}")
        elif left:
            outcome.blame("wrong", f"{kind.__name__}: {words}: leaves {left}")
        elif held(place) != before:
            outcome.blame("lost", f"{kind.__name__}: {words}: changes files that are not its own")
        elif ended.code:
            outcome.refused += 1
        else:
            outcome.read += 1
    judged("faults", "odd paths", outcome)


STREAMS = [
    "--help", "--version", "models list", "models inspect demo", "pruners list", "pruners show d2pruner", "pruners list --json",
    "tasks list", "validate published", "priors show {prior}", "priors show {prior} --json", "priors diff {prior} {prior}",
    "validate report {run} -o {free} --force --format json,md",
]  # fmt: skip


@pytest.mark.parametrize("kind", ["full", "closed"])
def test_streams(place, judged, kind):
    outcome = Outcome()
    reading, writing = (None, os.open("/dev/full", os.O_WRONLY)) if kind == "full" else os.pipe()
    if reading is not None:
        os.close(reading)
    for words in STREAMS:
        given = [word.format(free=place / "faults" / "free", **good(place)) for word in split(words)]
        ended = command(given, place, stdout=writing)
        outcome.seconds, outcome.megabytes = max(outcome.seconds, ended.seconds), max(outcome.megabytes, ended.megabytes)
        bad, text = ended.wrong if kind == "full" else ("wrong", ended.err) if ended.err or ended.code != 1 else ("", "")
        if bad:
            outcome.blame(bad, f"{words}: {ended.code}: {text}")
        elif kind == "full" and "No space left" not in ended.err:
            outcome.blame("wrong", f"{words}: {ended.code} without a word")
        else:
            outcome.refused += 1
    os.close(writing)
    written = place / "faults" / "free"
    assert (written / "report.md").read_text().startswith("# "), "what was written is whole"
    judged("faults", f"{kind} streams", outcome)
