"""Several processes (torchrun) share out the questions: the bytes of one, whoever is killed, and however many go on."""

from __future__ import annotations

import shlex
import signal

import pytest
from processes import dying, together, torchrun_that_loses_rank_1

from biaskit import validate
from biaskit.errors import BiaskitError
from biaskit.families.checkpoints.load import Loaded, load_model
from biaskit.families.checkpoints.tiny import tiny_model

METHODS, TASKS = ["none", "random@k=3", "fastv@k=3"], ["scenes-presence", "scenes-where"]
QUESTIONS = 14


@pytest.fixture(scope="module")
def demo():
    return load_model("demo", device="cpu")


def run(demo, out, **more):
    settings = {"limit": QUESTIONS, "batch_size": 4, "command": "as typed", "progress": False, **more}
    return validate(demo, TASKS, METHODS, 0.25, out=out, **settings)


@pytest.fixture(scope="module")
def whole(demo, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    found = run(demo, out)
    return files(out), found.scores


def files(out):
    """What must be the same, to the byte; and nothing else lies there but the times."""
    assert {path.name for path in out.iterdir()} == {"results.jsonl", "run.json", "timing.jsonl"}
    return (out / "results.jsonl").read_bytes(), (out / "run.json").read_bytes()


def kill(demo, out, count, victim, after):
    """Let so many processes answer so many batches each, then kill one of them; the others are ended as torchrun does."""
    reports = dying(count, victim, after, out.parent / f"{out.name}-notes")
    codes = together(count, lambda rank: run(demo, out, report=reports(rank)))
    assert codes[victim] == -signal.SIGKILL and all(codes)


@pytest.mark.parametrize("count", [2, 3])
def test_any_number_of_processes_gives_the_bytes_of_one(demo, whole, tmp_path, count):
    def act(rank):
        found = run(demo, tmp_path)
        assert found.asked == 2 * 3 * QUESTIONS and found.scores == whole[1], "on every process"

    assert together(count, act) == [0] * count
    assert files(tmp_path) == whole[0]
    times = (tmp_path / "timing.jsonl").read_text().splitlines()
    assert len(times) == 2 * 3 * 4, "one line a batch and cell, of all processes"


def test_images_scaled_down_are_the_same_in_two_processes(tmp_path):
    """Each finds the sizes by itself: they depend on the processor and the image alone."""
    qwen = Loaded(*tiny_model("qwen2.5-vl"), "tiny", "test")

    def act(out):
        validate(qwen, "scenes-presence", ["none", "downscale"], 0.25, out=out, limit=4, batch_size=2, command="", progress=False)

    act(tmp_path / "one")
    assert together(2, lambda rank: act(tmp_path / "two")) == [0, 0]
    assert files(tmp_path / "two") == files(tmp_path / "one")
    assert files(tmp_path / "one")[0].count(b'"pruner": "downscale"') == 4


@pytest.mark.parametrize(("counts", "victims"), [((2, 1), (1,)), ((1, 2), (0,)), ((2, 3), (0,)), ((3, 2, 1), (2, 1))])
def test_any_number_goes_on_after_a_kill(demo, whole, tmp_path, counts, victims):
    for count, victim in zip(counts, victims, strict=False):
        kill(demo, tmp_path, count, victim, after=3)
    there = sum(path.read_bytes().count(b"\n") for path in tmp_path.glob("results.jsonl*"))
    assert there >= 3 * 4

    def last(rank):
        assert run(demo, tmp_path).asked <= 2 * 3 * QUESTIONS - 12, "whole batches are not asked again"

    assert together(counts[-1], last) == [0] * counts[-1]
    assert files(tmp_path) == whole[0]


def test_the_others_notice_a_lost_process(demo, whole, tmp_path):
    """Without torchrun, which would end them."""
    words = tmp_path.parent / f"{tmp_path.name}-words"

    def act(rank):
        report = dying(1, 1, 2, tmp_path.parent / f"{tmp_path.name}-notes")(rank) if rank == 1 else None
        try:
            run(demo, tmp_path, report=report)
        except BiaskitError as error:
            words.write_text(f"{error.message}\n{error.hint}")
            raise SystemExit(3) from None

    assert together(2, act, stop=False) == [3, -signal.SIGKILL]
    message, hint = words.read_text().splitlines()
    assert "process 0 of 2 has lost the others" in message and "the same command resumes" in hint
    assert run(demo, tmp_path).asked <= 3 * QUESTIONS
    assert files(tmp_path) == whole[0]


def test_parts_that_a_kill_left_are_taken_in_once(demo, whole, tmp_path):
    """Killed between adding a part to the results and deleting it; with a torn last line."""
    kill(demo, tmp_path, 2, 0, after=3)
    part = tmp_path / "results.jsonl.1"
    data = part.read_bytes()
    assert data.count(b"\n") >= 4
    with (tmp_path / "results.jsonl").open("ab") as file:
        file.write(data + b'{"torn')
    part.write_bytes(data + b'{"torn, too')
    assert together(1, lambda rank: run(demo, tmp_path)) == [0]
    assert files(tmp_path) == whole[0]


def test_force_throws_parts_away_and_other_runs_are_refused_on_all(demo, whole, tmp_path):
    kill(demo, tmp_path, 2, 0, after=3)

    def other(rank):
        with pytest.raises(BiaskitError, match="seed was 0, is 5"):
            run(demo, tmp_path, seed=5)

    assert together(2, other) == [0, 0]

    def anew(rank):
        assert run(demo, tmp_path, force=True).asked == 2 * 3 * QUESTIONS

    assert together(2, anew) == [0, 0]
    assert files(tmp_path) == whole[0]


def test_torchrun_a_killed_rank_and_another_number(demo, tmp_path):
    """The command itself: rank 1 is killed from outside, one process goes on; the bytes are those of a run that nobody disturbed."""
    words = ["validate", "--model", "demo", "--task", "scenes-presence", "--pruner", "none,random@k=3", "--retention", "0.25"]
    words += ["--questions", "80", "--batch-size", "2", "--device", "cpu", "--out", "run"]
    two, one = tmp_path / "two", tmp_path / "one"
    for folder in (two, one):
        folder.mkdir()
    torchrun_that_loses_rank_1(words, two / "run" / "results.jsonl.1", cwd=two)
    assert (two / "run" / "results.jsonl.1").exists()
    for folder in (two, one):
        settings = {"limit": 80, "batch_size": 2, "command": shlex.join(["biaskit", *words]), "progress": False}
        found = validate(demo, "scenes-presence", "none,random@k=3", 0.25, out=folder / "run", **settings)
        assert (found.asked < 160) == (folder == two)
    assert files(two / "run") == files(one / "run")
