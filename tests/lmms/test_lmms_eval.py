"""lmms-eval itself, the real package, runs local benchmarks with the embedded model, pruned: its number is ours."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from biaskit import calibrate, get_pruner, load_model, prune
from biaskit.demo.evaluate import answers_of
from biaskit.demo.held_out import NEW_TOKENS, question_about, summarise
from biaskit.demo.scene_source import SceneSource
from biaskit.demo.scenes import draw_scene

pytestmark = [
    pytest.mark.lmms,
    pytest.mark.skipif(importlib.util.find_spec("lmms_eval") is None, reason="lmms-eval is not installed: run `make test-lmms`"),
]

TASKS = Path(__file__).parent / "tasks"
N = 60
SEED = 9100
CELLS = {
    "none": "pruner=none",
    "fastv": "pruner=fastv,retention=0.1,layer=2",
    "fastv+prior": "pruner=fastv,retention=0.1,layer=2,prior=prior.safetensors",
    "d2pruner": "pruner=d2pruner,retention=0.1,layer=2,prior=prior.safetensors,alpha=0.25",
    "random": "pruner=random,budget=9,seed=5",
}


@dataclass(frozen=True)
class Local:
    """A folder with the questions and a prior, and what we know of them ourselves."""

    folder: Path
    loaded: Any
    prior: Any
    scenes: list[Any]
    questions: list[Any]

    def ours(self, cell: str, batch: int = 20) -> list[str]:
        """Our own answers: the engine and stock generate(), nothing of lmms-eval."""
        words = dict(word.split("=") for word in CELLS[cell].split(","))
        name, prior, seed = words.pop("pruner"), self.prior if words.pop("prior", None) else None, int(words.pop("seed", 0))
        asked = (self.loaded.model, self.loaded.processor, self.scenes, self.questions, NEW_TOKENS["presence"], batch)
        if name == "none":
            return answers_of(*asked)
        pruner = get_pruner(name, **{key: json.loads(value) for key, value in words.items()})
        with prune(self.loaded, pruner, prior=prior, seed=seed):
            return answers_of(*asked)


@pytest.fixture(scope="session")
def local(tmp_path_factory):
    import datasets

    folder = tmp_path_factory.mktemp("benchmark")
    scenes = [draw_scene(SEED, i, "photo") for i in range(N)]
    questions = [question_about(scene.things, "presence", SEED, i) for i, scene in enumerate(scenes)]
    rows = {
        "question_id": [str(i) for i in range(N)],
        "question": [question.text for question in questions],
        "answer": [question.answer for question in questions],
        "image": [Image.fromarray(scene.pixels) for scene in scenes],
    }
    datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image()).to_parquet(folder / "test.parquet")
    loaded = load_model("demo", device="cpu")
    prior = calibrate(loaded, SceneSource(16, 0), workers=0, layers=(1,))
    prior.save(folder / "prior.safetensors")
    return Local(folder, loaded, prior, scenes, questions)


@pytest.fixture
def theirs(local, monkeypatch, tmp_path_factory):
    """(task, --model_args, …) → lmms-eval's whole result."""
    from lmms_eval.evaluator import simple_evaluate
    from lmms_eval.tasks import TaskManager

    monkeypatch.chdir(local.folder)

    def run(task: str, cell: str, batch: int = 20, simple: bool = False, **more: Any) -> dict[str, Any]:
        return simple_evaluate(
            model="biaskit",
            model_args=f"pretrained=demo,device=cpu,{cell}",
            tasks=[task],
            task_manager=TaskManager(include_path=str(TASKS), model_name="biaskit"),
            batch_size=batch,
            force_simple=simple,
            bootstrap_iters=0,
            **more,
        )

    return run


def answers(result: dict[str, Any], task: str = "scenes_presence") -> list[Any]:
    samples = sorted(result["samples"][task], key=lambda sample: sample["doc_id"])
    return [sample["filtered_resps"][0] for sample in samples]


def score(result: dict[str, Any], metric: str, task: str = "scenes_presence") -> float:
    return result["results"][task][f"{metric},none"]


@pytest.mark.parametrize("cell", CELLS)
def test_its_number_is_ours(local, theirs, cell):
    result = theirs("scenes_presence", CELLS[cell])
    ours = local.ours(cell)
    assert answers(result) == ours
    scores = summarise("presence", local.questions, ours)
    assert score(result, "pope_accuracy") == scores["accuracy"]
    assert score(result, "pope_f1_score") == pytest.approx(scores["f1"], abs=1e-12)
    kept = {"none": 144, "random": 9}.get(cell, 14)
    assert result["throughput"]["avg_visual_tokens"] == 144 and result["throughput"]["avg_kept_tokens"] == kept
    layers = 144 if cell == "none" else kept if cell == "random" else (2 * 144 + 7 * kept) / 9
    assert result["throughput"]["avg_layer_mean_tokens"] == pytest.approx(layers)
