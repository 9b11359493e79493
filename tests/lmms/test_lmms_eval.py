"""lmms-eval itself, the real package, runs local benchmarks with the embedded model, pruned: its number is ours."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

pytestmark = [
    pytest.mark.lmms,
    pytest.mark.skipif(importlib.util.find_spec("lmms_eval") is None, reason="lmms-eval is not installed: run `make test-lmms`"),
]

TASKS = Path(__file__).parent / "tasks"
N = 40
BATCH = 20
CELLS = {
    "none": "pruner=none",
    "fastv": "pruner=fastv,retention=0.1,k=2",
    "fastv+prior": "pruner=fastv,retention=0.1,k=2,prior=prior.safetensors",
    "d2pruner+prior": "pruner=d2pruner,retention=0.1,k=2,prior=prior.safetensors,alpha=0.25",
    "random": "pruner=random,budget=9,k=2,seed=5",
}


@dataclass
class Local:
    """A folder with questions and a prior; and our own way to answer them: our tasks, our engine, nothing of lmms-eval."""

    folder: Path
    loaded: Any
    prior: Any
    tasks: dict[str, Any]
    known: dict[tuple[str, str], list[str]] = field(default_factory=dict)

    def answers(self, kind: str, cell: str) -> list[str]:
        """The answer to every question under one of CELLS."""
        if (kind, cell) not in self.known:
            self.known[kind, cell] = self._answers(self.tasks[kind], dict(word.split("=") for word in CELLS[cell].split(",")))
        return self.known[kind, cell]

    def _answers(self, task: Any, words: dict[str, str]) -> list[str]:
        import biaskit

        name, seed = words.pop("pruner"), int(words.pop("seed", 0))
        prior = self.prior if words.pop("prior", None) else None
        if name == "none":
            return self._generate(task)
        pruner = biaskit.get_pruner(name, **{key: json.loads(value) for key, value in words.items()})
        with biaskit.prune(self.loaded, pruner, prior=prior, seed=seed):
            return self._generate(task)

    def _generate(self, task: Any) -> list[str]:
        import torch

        loaded, found = self.loaded, []
        for start in range(0, N, BATCH):
            rows = range(start, min(start + BATCH, N))
            prompts = [task.prompt(i, loaded.wording) for i in rows]
            inputs = loaded.family.prepare(loaded.processor, loaded.model.config, [[task.image(i)] for i in rows], prompts).inputs
            with torch.inference_mode():
                output = loaded.model.generate(**inputs, max_new_tokens=task.max_new_tokens, do_sample=False)
            found += loaded.processor.tokenizer.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        return found

    def scores(self, kind: str, answers: Sequence[str]) -> dict[str, float]:
        """What our own task makes of answers."""
        from models import boxes

        from biaskit.images.scenes.draw import EDGE
        from biaskit.tasks import Seen

        seen, task = Seen((EDGE, EDGE), (EDGE, EDGE), boxes=boxes("llava", "demo")), self.tasks[kind]
        return task.summarise([{"scores": task.score(i, answer, seen)} for i, answer in enumerate(answers)])


@pytest.fixture(scope="session")
def local(tmp_path_factory):
    os.environ |= {"HF_DATASETS_OFFLINE": "1", "HF_DATASETS_CACHE": str(tmp_path_factory.mktemp("cache"))}  # read when it is imported
    import datasets
    from models import wording

    import biaskit
    from biaskit.images.scenes.source import SceneSource
    from biaskit.tasks import open_task

    folder = tmp_path_factory.mktemp("benchmark")
    tasks = {kind: open_task(f"scenes-{kind}:photo", n=N) for kind in ("presence", "where")}
    for kind, task in tasks.items():
        rows = {
            "question_id": [task.identify(i) for i in range(N)],
            "question": [task.prompt(i, wording("llava", "demo")) for i in range(N)],
            "answer": [str(task.truth(i)) for i in range(N)],
            "image": [task.image(i) for i in range(N)],
            **({"box": [task.truth(i) for i in range(N)]} if kind == "where" else {}),
        }
        datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image()).to_parquet(folder / f"{kind}.parquet")
    loaded = biaskit.load_model("demo", device="cpu")
    prior = biaskit.calibrate(loaded, SceneSource(16, 0), workers=0, layers=(1,))
    prior.save(folder / "prior.safetensors")
    return Local(folder, loaded, prior, tasks)


@pytest.fixture(scope="session")
def index():
    """lmms-eval's index of tasks: ours beside its own."""
    from lmms_eval.tasks import TaskManager

    return TaskManager(include_path=str(TASKS), model_name="biaskit")


@pytest.fixture
def theirs(local, index, monkeypatch):
    """(task, model arguments, …) → lmms-eval's whole result."""
    from lmms_eval.evaluator import simple_evaluate

    monkeypatch.chdir(local.folder)

    def run(task: str, words: str, batch: int | str = BATCH, simple: bool = False, **more: Any) -> dict[str, Any]:
        settings = {"batch_size": batch, "force_simple": simple, "bootstrap_iters": 0, **more}
        return simple_evaluate("biaskit", f"pretrained=demo,device=cpu,{words}", tasks=[task], task_manager=index, **settings)

    return run


def answered(result: dict[str, Any], task: str) -> list[Any]:
    """Every document's answer as lmms-eval logged it, in the order of the documents."""
    return [sample["filtered_resps"][0] for sample in sorted(result["samples"][task], key=lambda sample: sample["doc_id"])]


@pytest.mark.parametrize("cell", CELLS)
def test_its_numbers_are_ours(local, theirs, cell):
    ours = local.answers("where", cell)
    result = theirs("scenes_where", CELLS[cell])
    assert answered(result, "scenes_where") == ours
    own = local.scores("where", ours)
    assert own["n"] == N and result["results"]["scenes_where"]["iou50,none"] == own["iou50"]
    kept = {"none": 144, "random": 9}.get(cell, 14)
    spent = result["throughput"]
    assert spent["avg_visual_tokens"] == 144 and spent["avg_kept_tokens"] == kept
    assert spent["avg_layer_mean_tokens"] == pytest.approx((2 * 144 + 7 * kept) / 9)
    ours = local.answers("presence", cell)
    result = theirs("scenes_presence", CELLS[cell])
    assert answered(result, "scenes_presence") == ours
    own, found = local.scores("presence", ours), result["results"]["scenes_presence"]
    assert own["n"] == N and found["pope_accuracy,none"] == own["correct"]
    assert found["pope_f1_score,none"] == pytest.approx(own["f1"], abs=1e-12)


def test_the_methods_answer_differently(local):
    """Else the equality above would hold for a model that ignores the pruner; and the scores differ, so equal ones mean something."""
    assert len({tuple(local.answers("where", cell)) for cell in CELLS}) == len(CELLS)
    assert local.scores("where", local.answers("where", "none"))["iou50"] > 0.5
    assert set(local.answers("presence", "none")) == {"yes", "no"}


def test_the_simple_form_answers_alike(local, theirs):
    result = theirs("scenes_where", CELLS["fastv+prior"], simple=True, limit=BATCH)
    assert result["config"]["model_backend"] == "biaskit.validation.lmms.adapter.Simple (simple)"
    assert answered(result, "scenes_where") == local.answers("where", "fastv+prior")[:BATCH]


def test_random_draws_do_not_depend_on_the_batch_size(local, theirs):
    assert (
        answered(theirs("scenes_where", CELLS["random"], batch=7, limit=BATCH), "scenes_where") == local.answers("where", "random")[:BATCH]
    )


@pytest.mark.parametrize("cell", ["none", "d2pruner+prior"])
def test_likelihoods_choose_what_is_generated(local, theirs, cell):
    """The model says yes or no, so the likelier of the two is its answer; lmms-eval's scorer takes the smallest loss."""
    result = theirs("scenes_choice", CELLS[cell], simple=True, limit=BATCH)
    ours = local.answers("presence", cell)[:BATCH]
    samples = sorted(result["samples"]["scenes_choice"], key=lambda sample: sample["doc_id"])
    pairs = [sample["filtered_resps"] for sample in samples]
    assert [("yes", "no")[no[0] < yes[0]] for yes, no in pairs] == ours
    assert [(yes[1], no[1]) for yes, no in pairs] == [(answer == "yes", answer == "no") for answer in ours], "the greedy answer"
    right = [local.tasks["presence"].truth(i) == answer for i, answer in enumerate(ours)]
    assert result["results"]["scenes_choice"]["acc,none"] == sum(right) / BATCH


def test_from_the_command_line(local, tmp_path):
    """The whole way of a user, with what lmms-eval writes."""
    words = ["--batch_size", str(BATCH), "--limit", str(BATCH), "--log_samples", "--output_path", str(tmp_path)]
    shown = lmms_eval(local.folder, f"device=cpu,{CELLS['d2pruner+prior']}", *words)
    (samples,) = tmp_path.rglob("*samples_scenes_where.jsonl")
    rows = sorted(map(json.loads, samples.read_text().splitlines()), key=lambda row: row["doc_id"])
    ours = local.answers("where", "d2pruner+prior")[:BATCH]
    assert [row["filtered_resps"] for row in rows] == ours, shown
    (results,) = tmp_path.rglob("*results.json")
    report = json.loads(results.read_text())
    assert report["results"]["scenes_where"]["iou50,none"] == local.scores("where", ours)["iou50"]
    assert report["config"]["model_args"].endswith(CELLS["d2pruner+prior"])
    assert "|scenes_where|" in shown.replace(" ", "")


def test_mistakes_on_the_command_line_say_what_to_do(local):
    shown = lmms_eval(local.folder, "pruner=d2pruner,retention=0.1,alhpa=1")
    assert "d2pruner has no parameter 'alhpa'" in shown and "hint: did you mean alpha" in shown
    assert not re.search(r"(?m)^(hint: .*)\n\1$", shown), "said twice"


def lmms_eval(folder: Path, settings: str, *words: str) -> str:
    """What `lmms-eval` prints about the task of boxes."""
    asked = ["--model", "biaskit", "--model_args", f"pretrained=demo,{settings}", "--tasks", "scenes_where", "--include_path", str(TASKS)]
    command = [sys.executable, "-m", "lmms_eval", *asked, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=folder)
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    ("words", "batch", "message"),
    [
        ("pruner=none,retention=0.1", 1, "pruner=none takes no retention=0.1"),
        ("pruner=fastv", 1, "fastv has neither a retention nor a budget"),
        ("pruner=fastv,retention=0.1,budget=3", 1, "both given"),
        ("pruner=fastv,retention=0.1,k=99", 1, "the model has layers 0 … 8"),
        ("pruner=d2pruner,retention=0.1", 1, "d2pruner needs a prior"),
        ("pruner=none", "auto", "batch size 'auto'"),
    ],
)
def test_mistakes(theirs, words, batch, message):
    from biaskit.errors import BiaskitError

    with pytest.raises(BiaskitError, match=message) as caught:
        theirs("scenes_presence", words, batch=batch)
    assert [note for note in caught.value.__notes__ if note.startswith("hint: ")] == caught.value.__notes__[:1]


def test_what_it_does_not_do_is_refused(theirs):
    from lmms_eval.api.instance import Instance
    from lmms_eval.models import get_model

    from biaskit.errors import BiaskitError

    model = get_model("biaskit")(pretrained="demo", device="cpu")
    request = Instance("generate_until_multi_round", (), 0, {"task": "mmsearch", "doc_id": 3, "repeats": 1})
    with pytest.raises(BiaskitError, match="mmsearch asks in several rounds"):
        model.generate_until_multi_round([request])
    with pytest.raises(BiaskitError, match="mmsearch asks for likelihoods") as caught:
        model.loglikelihood([request])
    assert caught.value.__notes__ == ["hint: run it with --force_simple"]
    model.task_dict["clips"] = {"test": [{}] * 4}
    film = [{"role": "user", "content": [{"type": "video", "url": "film.mp4"}, {"type": "text", "text": "what happens ?"}]}]
    arguments = ("", lambda document: film, {"max_new_tokens": 2}, 3, "clips", "test")
    with pytest.raises(BiaskitError, match="the task shows a model video") as caught:
        model.generate_until([Instance("generate_until", arguments, 0, {"task": "clips", "doc_id": 3, "repeats": 1})])
    assert "while answering clips, document 3" in caught.value.__notes__
