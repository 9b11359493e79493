"""Validation on the embedded model: what the records say, and that every way to the end gives the same bytes."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import random
import signal
import threading

import numpy as np
import pytest
import torch
from models import boxes, wording

from biaskit import prune, validate
from biaskit.demo.evaluate import answers_of
from biaskit.engine.tower import tower_sizes
from biaskit.errors import BiaskitError
from biaskit.families.checkpoints.flops import tower_cost
from biaskit.families.checkpoints.load import load_model
from biaskit.images.scenes.draw import draw_scene
from biaskit.prior.value import PlaneStats, Prior
from biaskit.pruners.readings import ATTENTION
from biaskit.tasks import Seen, open_task
from biaskit.validation.ask import answers as asking
from biaskit.validation.ask.answers import seed_of
from biaskit.validation.ask.plan import opened
from biaskit.validation.results.directory import read_results

METHODS = ["none", "random@k=3", "fastv@k=3+prior"]
QUESTIONS, BATCH = 24, 6


@pytest.fixture(scope="module")
def demo():
    return load_model("demo", device="cpu")


def prior(level=1.0, model_type="llava"):
    mean = np.linspace(level, 2, 9 * 144, dtype=np.float32).reshape(9, 12, 12)
    return Prior({"image": PlaneStats(mean)}, tuple(range(9)), np.ones(9, dtype=np.float32), {"model_type": model_type})


def run(demo, out, task="scenes-presence", methods=METHODS, retention=(0.5, 0.1), limit=QUESTIONS, **more):
    return validate(demo, task, methods, retention, **{"out": out, "prior": prior(), "limit": limit, "batch_size": BATCH, **more})


@pytest.fixture(scope="module")
def whole(demo, tmp_path_factory):
    """A run that nothing disturbed."""
    out = tmp_path_factory.mktemp("whole")
    return out, run(demo, out)


def results(out):
    return (out / "results.jsonl").read_bytes()


def test_the_bytes_of_a_prior_are_made_once(demo, tmp_path, monkeypatch):
    made, to_bytes = [], Prior.to_bytes
    monkeypatch.setattr(Prior, "to_bytes", lambda self: made.append(self) or to_bytes(self))
    found = run(demo, tmp_path, methods=["fastv@k=3+prior", "fastv@k=2+prior"], limit=2)
    assert len(found.manifest["cells"]) == 4 and len(made) == 1


def test_every_cell_answers_every_question_in_order(whole):
    out, found = whole
    records = list(read_results(out))
    cells = ["none", "random@k=3/r0.5", "random@k=3/r0.1", "fastv@k=3+prior/r0.5", "fastv@k=3+prior/r0.1"]
    assert [cell["cell"] for cell in found.manifest["cells"]] == cells
    order = np.random.default_rng(0).permutation(1000)[:QUESTIONS]
    ids = [f"scenes-presence/{i}" for i in order]
    assert [(record["cell"], record["id"]) for record in records] == [(cell, name) for cell in cells for name in ids]
    assert found.asked == len(records) == 5 * QUESTIONS
    for cell in cells:
        right = [record["scores"]["correct"] for record in records if record["cell"] == cell]
        assert found.scores["scenes-presence", cell]["correct"] == pytest.approx(sum(right) / QUESTIONS)


def test_a_record_says_what_is_needed_to_ask_and_to_score_again(demo, whole):
    task = open_task("scenes-presence")
    for record in read_results(whole[0]):
        i = int(record["id"].rpartition("/")[2])
        assert (
            record["prompt"] == task.prompt(i, wording("llava", "demo"))
            and record["truth"] == task.truth(i)
            and record["tags"] == task.tags(i)
        )
        assert record["image"] == task.image_name(i)
        seen = Seen((192, 192), (192, 192), boxes=boxes("llava", "demo"))
        assert record["scores"] == task.score(i, record["answer"], seen)
        kept = {"none": 144, "0.5": 72, "0.1": 14}[record["cell"].rpartition("/r")[2] if record["pruner"] != "none" else "none"]
        assert record["n_kept"] == record["budget"] == kept and record["n_visual"] == 144
        assert record["layer_tokens"] == ([[0, 144]] if kept == 144 else [[0, 144], [3, kept]])
        assert record["mean_tokens"] == pytest.approx((3 * 144 + 6 * kept) / 9)
        # every layer holds keys and values of the question's own tokens
        config = whole[1].manifest["dims"]
        numbers = 2 * config["kv_heads"] * config["head_dim"] * (9 * record["n_text"] + 3 * 144 + 6 * kept)
        assert record["cache_bytes"] == 4 * numbers
        assert record["tower_flops"] == tower_cost(tower_sizes(demo), [144])
        assert (record["prior"] is not None) == ("+prior" in record["cell"])


def test_the_unpruned_cell_is_the_stock_model(demo, whole):
    task = open_task("scenes-presence")
    stock = [record for record in read_results(whole[0]) if record["pruner"] == "none"]
    numbers = [int(record["id"].rpartition("/")[2]) for record in stock]
    scenes = [draw_scene(task.seed, i, task.placement) for i in numbers]
    with torch.inference_mode():
        answers = answers_of(demo.model, demo.processor, scenes, [task.question(i) for i in numbers], task.max_new_tokens)
    assert [record["answer"] for record in stock] == [answer.strip() for answer in answers]


@pytest.mark.parametrize(("batch_size", "questions"), [(1, 5), (24, 24)])
def test_records_do_not_depend_on_the_batch_size(demo, whole, tmp_path, batch_size, questions):
    run(demo, tmp_path, batch_size=batch_size, limit=questions, methods=METHODS[1:], retention=[0.1])
    mine = results(tmp_path).splitlines()
    assert len(mine) == 2 * questions and set(mine) < set(results(whole[0]).splitlines())


def test_random_numbers_belong_to_the_question(demo):
    """Alone, or in company, a question's draw is that of its own seed."""
    task = open_task("scenes-presence")
    images, prompts = [[task.image(i)] for i in range(3)], [task.prompt(i, wording("llava", "demo")) for i in range(3)]
    seeds = [seed_of(0, task.name, task.identify(i)) for i in range(3)]
    assert len(set(seeds)) == 3 and seed_of(1, task.name, task.identify(0)) not in seeds
    from biaskit.pruners import get_pruner

    def kept(rows):
        inputs = demo.family.prepare(demo.processor, demo.model.config, [images[i] for i in rows], [prompts[i] for i in rows]).inputs
        with torch.inference_mode(), prune(demo.model, get_pruner("random", retention=0.1), seed=[seeds[i] for i in rows]) as pruning:
            demo.model(**inputs)
        return [sample.indices.tolist() for sample in pruning.samples]

    together = kept([0, 1, 2])
    assert together == kept([0]) + kept([1]) + kept([2]) and len({tuple(one) for one in together}) == 3
    assert kept([2, 0]) == [together[2], together[0]]
    same = kept([0, 0])
    assert same == [together[0], together[0]]
    drawn = []
    for seed in (3, np.int64(3)):
        inputs = demo.family.prepare(demo.processor, demo.model.config, images, prompts).inputs
        with torch.inference_mode(), prune(demo.model, get_pruner("random", retention=0.1), seed=seed) as pruning:
            demo.model(**inputs)
        drawn.append([sample.indices.tolist() for sample in pruning.samples])
    assert drawn[0] == drawn[1]
    with pytest.raises(BiaskitError, match="1 seeds, but sample 1"), prune(demo.model, get_pruner("random", retention=0.1), seed=[5]):
        inputs = demo.family.prepare(demo.processor, demo.model.config, images, prompts).inputs
        demo.model(**inputs)


# --- killed and started again -------------------------------------------------------------------------------------------------------


def _child(demo, out, asked, wait):
    """Run, and die some seconds after so many batches: a slow machine moves the moment, not what was done before it."""
    torch.set_num_threads(1)
    reports = itertools.count()

    def report(progress):
        if next(reports) == asked:
            threading.Timer(wait, os.kill, (os.getpid(), signal.SIGKILL)).start()

    run(demo, out, report=report)


def test_ten_kills_at_random_moments_end_with_the_same_bytes(demo, whole, tmp_path):
    context, moments = multiprocessing.get_context("fork"), random.Random(0)
    step = np.mean([json.loads(line)["seconds"] for line in (whole[0] / "timing.jsonl").read_text().splitlines()])
    out, sizes, kills = tmp_path / "killed", [], 0
    while kills < 10:
        child = context.Process(target=_child, args=(demo, out, moments.randrange(4), moments.uniform(0, 1.5) * step))
        child.start()
        child.join()
        kills += child.exitcode == -signal.SIGKILL
        sizes.append((out / "results.jsonl").stat().st_size if (out / "results.jsonl").exists() else 0)
        if child.exitcode == 0:  # done before it was to die: begin again, the kills are still owed
            assert results(out) == results(whole[0])
            (out / "results.jsonl").unlink()
    run(demo, out)
    assert results(out) == results(whole[0])
    assert len(set(sizes)) > 3, "the kills came at different moments"
    assert not list(out.glob(".*"))


def test_cut_anywhere_it_ends_with_the_same_bytes(demo, whole, tmp_path, monkeypatch):
    """Whatever prefix of the file a kill leaves, in order of answers or of cells, with half a line or half a batch at its end."""
    right = results(whole[0])
    real, told, count = asking.answer, {}, []

    def recalled(loaded, task, asked, cell, wanted, say):
        count.extend(asked.items)
        keys = [(cell.label, i) for i in asked.items]
        if not all(key in told for key in keys):
            answers, samples = real(loaded, task, asked, cell, wanted, say)
            told.update(zip(keys, zip(answers, samples, strict=True), strict=True))
        return [told[key][0] for key in keys], [told[key][1] for key in keys]

    monkeypatch.setattr(asking, "answer", recalled)
    run(demo, tmp_path)
    assert results(tmp_path) == right
    for cut in random.Random(1).sample(range(len(right)), 5):
        count.clear()
        (tmp_path / "results.jsonl").write_bytes(right[:cut])
        (tmp_path / "timing.jsonl").write_bytes(b'{"torn')
        run(demo, tmp_path)
        assert results(tmp_path) == right
        lines = right[:cut].count(b"\n")
        assert 5 * QUESTIONS - lines <= len(count) < 5 * QUESTIONS - lines + BATCH, "whole batches stay, one is asked again"
        assert all(json.loads(line)["n"] == BATCH for line in (tmp_path / "timing.jsonl").read_text().splitlines())


def test_interrupted_from_the_keyboard(demo, whole, tmp_path):
    def stop(progress):
        if progress.done == 42:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(demo, tmp_path, report=stop)
    assert len(list(read_results(tmp_path))) == 42
    progress = []
    found = run(demo, tmp_path, report=progress.append)
    assert (progress[0].done, progress[0].total, progress[-1].done) == (42, 120, 120) and found.asked == 78
    assert results(tmp_path) == results(whole[0])
    # running scores count what was there before
    last = next(step for step in reversed(progress) if step.cell == "none")
    assert last.n == QUESTIONS and last.score == pytest.approx(found.scores["scenes-presence", "none"]["correct"])


def test_a_finished_run_asks_nothing_and_touches_nothing(demo, whole):
    before = {path.name: (path.stat().st_mtime_ns, path.stat().st_ino) for path in whole[0].iterdir()}
    assert run(demo, whole[0]).asked == 0
    assert {path.name: (path.stat().st_mtime_ns, path.stat().st_ino) for path in whole[0].iterdir()} == before


# --- added to, or refused -----------------------------------------------------------------------------------------------------------


def test_more_questions_methods_retentions_and_tasks_are_added(demo, whole, tmp_path):
    run(demo, tmp_path, methods=METHODS[:2], retention=[0.5], limit=10)
    assert run(demo, tmp_path, methods=METHODS[:2], retention=[0.5]).asked == 2 * (QUESTIONS - BATCH)  # 6 of the 10 are in whole batches
    assert run(demo, tmp_path, methods=METHODS[:2]).asked == QUESTIONS
    assert run(demo, tmp_path).asked == 2 * QUESTIONS
    assert sorted(results(tmp_path).splitlines()) == sorted(results(whole[0]).splitlines())
    both = run(demo, tmp_path, task=["scenes-attribute", "scenes-presence"], limit=8)
    assert both.asked == 5 * 8 and [task["name"] for task in both.manifest["tasks"]] == ["scenes-presence", "scenes-attribute"]
    assert {task["name"]: task["n"] for task in both.manifest["tasks"]} == {"scenes-presence": QUESTIONS, "scenes-attribute": 8}
    assert both.scores["scenes-presence", "none"]["n"] == QUESTIONS, "a smaller limit takes nothing away"
    # one cell more of one task, and all that was there stays as it was
    before = results(tmp_path)
    assert run(demo, tmp_path, methods=["divprune"], retention=[0.5], limit=4).asked == 4
    assert set(before.splitlines()) < set(results(tmp_path).splitlines())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, r"seed was 0, is 1"),
        ({"prior": prior(0.5)}, r"prior prior sha256 was .*, is .*fastv@k=3\+prior/r0.5 prior was"),
        ({"methods": ["random@k=3", "fastv@k=3+prior"], "keep_indices": True}, "keep_indices was false, is true"),
    ],
)
def test_a_directory_of_another_run_is_refused(demo, whole, change, message):
    before = results(whole[0])
    with pytest.raises(BiaskitError, match=message) as error:
        run(demo, whole[0], **change)
    assert "--force" in error.value.hint and results(whole[0]) == before


def test_settings_of_a_label_must_be_the_same(demo, tmp_path):
    from biaskit.validation.ask.methods import Grid

    validate(demo, "scenes-presence", Grid(["fastv"], [0.5], layer=2), out=tmp_path, limit=2)
    with pytest.raises(BiaskitError, match=r"fastv/r0.5 parameters layer was 2, is 3"):
        validate(demo, "scenes-presence", Grid(["fastv"], [0.5], layer=3), out=tmp_path, limit=2)
    assert validate(demo, "scenes-presence", Grid(["fastv"], [0.5], layer=3), out=tmp_path, limit=2, force=True).asked == 2
    assert {record["parameters"]["layer"] for record in read_results(tmp_path)} == {3}


def test_what_is_no_results_directory(demo, tmp_path):
    few = {"methods": ["none"], "limit": 2}
    (tmp_path / "results.jsonl").write_text("precious\n")
    with pytest.raises(BiaskitError, match=r"has no run.json beside it"):
        run(demo, tmp_path, **few)
    assert (tmp_path / "results.jsonl").read_text() == "precious\n"
    run(demo, tmp_path, **few, force=True)
    good = results(tmp_path)
    (tmp_path / "results.jsonl").write_bytes(b"garbage\n" + good)
    with pytest.raises(BiaskitError, match=r"line 1 is not an answer"):
        run(demo, tmp_path, **few)
    (tmp_path / "results.jsonl").write_bytes(good)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(BiaskitError, match=r"run.json is broken"):
        run(demo, tmp_path, **few)
    (tmp_path / "file").write_text("")
    with pytest.raises(BiaskitError, match="cannot be used"):
        run(demo, tmp_path / "file", **few)


def test_two_runs_at_once_are_refused(demo, tmp_path):
    def again(progress):
        run(demo, tmp_path, methods=["none"], limit=2)

    with pytest.raises(BiaskitError, match="another run is writing"):
        run(demo, tmp_path, methods=["none"], limit=2, report=again)


# --- memory, measures, wrong tasks ----------------------------------------------------------------------------------------------------


def test_out_of_memory_halves_the_batch_and_changes_nothing(demo, whole, tmp_path, monkeypatch):
    real, said = type(demo.model).generate, []

    def small(self, **inputs):
        if len(inputs["input_ids"]) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return real(self, **inputs)

    limit = 2
    monkeypatch.setattr(type(demo.model), "generate", small)
    run(demo, tmp_path, methods=METHODS[:2], limit=2 * BATCH, say=said.append)
    assert said == [f"out of memory: continuing with {n} questions per forward pass" for n in (3, 1)]
    assert set(results(tmp_path).splitlines()) <= set(results(whole[0]).splitlines()) and len(list(read_results(tmp_path))) == 6 * BATCH
    limit = 0
    with pytest.raises(BiaskitError, match="one question of scenes-presence in cell none needs more memory"):
        run(demo, tmp_path / "none")


def test_selections_are_measured_where_they_are_made(demo, tmp_path):
    class Share:
        """Attention kept; random does not read attention, so it is recorded for the measure alone."""

        needs = frozenset({ATTENTION})

        def __call__(self, signals, keep):
            return {"share": float(signals[ATTENTION][keep.indices].sum() / signals[ATTENTION].sum()), "n": len(keep)}

        def settings(self):
            return {"of": "attention"}

    methods = ["none", "random@k=3", "fastv@k=3", "divprune@k=3"]
    found = run(demo, tmp_path, task="scenes-where", methods=methods, retention=[0.1], limit=4, observe=Share(), keep_indices=True)
    assert found.manifest["analysed"] == {"measures": "Share", "of": "attention"}
    plain = run(demo, tmp_path / "plain", task="scenes-where", methods=methods, retention=[0.1], limit=4)
    assert plain.manifest["analysed"] is None
    records = {(record["pruner"], record["id"]): record for record in read_results(tmp_path)}
    for record in read_results(tmp_path / "plain"):
        measured = records[record["pruner"], record["id"]]
        assert {key: value for key, value in measured.items() if key not in ("kept", "shown", "selection")} == record, (
            "measuring changes nothing"
        )
    for (pruner, name), record in records.items():
        assert len(record["kept"]) == record["n_kept"]
        if pruner == "none":
            assert record["selection"] == {}
            continue
        assert record["selection"]["n"] == 14 and 0 <= record["selection"]["coverage"] <= 1
        assert record["selection"]["share"] <= records["fastv", name]["selection"]["share"] + 1e-6, "no one keeps more than the largest"


def test_generated_tasks_are_as_long_as_the_limit():
    assert len(opened("scenes-where", 5)) == 1000 and len(opened("scenes-where", 1005)) == 1005
    assert opened("scenes-where", 1005).identify(3) == opened("scenes-where", 5).identify(3)


class _Odd:
    """A task with a fault."""

    def __new__(cls, fault):
        task = open_task("scenes-presence", n=4)
        if fault == "twice":
            task.identify = lambda i: "same"
        if fault == "nan":
            task.score = lambda i, answer, seen: {"correct": float("nan"), "parsed": 1.0}
        if fault == "empty":
            task = task[0:0]
        return task


@pytest.mark.parametrize(
    ("fault", "message"),
    [("twice", "two questions with the id same"), ("nan", "a score that is not a number"), ("empty", "has no questions")],
)
def test_faulty_tasks(demo, tmp_path, fault, message):
    with pytest.raises(BiaskitError, match=message):
        run(demo, tmp_path, task=_Odd(fault), methods=["none"], limit=None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "scenes-wear"}, "unknown task 'scenes-wear'"),
        ({"task": []}, "no tasks"),
        ({"methods": ["fastw"]}, "unknown pruner 'fastw'"),
        ({"retention": 0}, "retention is 0"),
        ({"limit": 0}, "limit is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"workers": -1}, "workers is -1"),
        ({"seed": -1}, "seed is -1"),
        ({"prior": prior(model_type="qwen3_vl")}, "model type 'qwen3_vl', not 'llava'"),
        ({"prior": None}, "no prior 'prior'"),
    ],
)
def test_wrong_settings(demo, tmp_path, change, message):
    with pytest.raises(BiaskitError, match=message):
        run(demo, tmp_path / "none", **change)
    assert not (tmp_path / "none").exists()
