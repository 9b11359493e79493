"""The shipped weights: stock checkpoints of at most 10 MB that answer as well as their cards say."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from biaskit.demo.evaluate import answers_of, open_model
from biaskit.demo.weights import SHIPPED, SIBLING
from biaskit.families.checkpoints.catalog import EMBEDDED, resolve
from biaskit.images.scenes.draw import draw_scene
from biaskit.images.scenes.held_out import NEW_TOKENS, TASKS, question_about, summarise

N = 60
SEED = 9500  # neither trained on nor in the card
STOCK = {
    SHIPPED: ("LlavaForConditionalGeneration", "LlavaProcessor"),
    SIBLING: ("Qwen2_5_VLForConditionalGeneration", "Qwen2_5_VLProcessor"),
}


@pytest.fixture(scope="module", params=STOCK, ids=lambda path: path.name)
def directory(request: pytest.FixtureRequest) -> Path:
    return request.param


@pytest.fixture(scope="module")
def shipped(directory: Path) -> tuple[Any, Any]:
    return open_model(directory)


@pytest.fixture(scope="module")
def record(directory: Path) -> dict[str, Any]:
    return json.loads((directory / "training.json").read_text())


def test_every_embedded_model_is_there() -> None:
    assert {Path(resolve(name).target).resolve() for name in EMBEDDED} == {path.resolve() for path in STOCK}


def test_loads_without_our_code(directory: Path) -> None:
    from transformers import AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

    model_class, processor_class = STOCK[directory]
    assert type(AutoModelForImageTextToText.from_pretrained(str(directory))).__name__ == model_class
    assert AutoTokenizer.from_pretrained(str(directory))("Where is the red ring?")["input_ids"]
    if find_spec("torchvision") is not None:
        processor = AutoProcessor.from_pretrained(str(directory))
        assert type(processor).__name__ == processor_class
        assert processor.chat_template


def test_is_small(directory: Path) -> None:
    assert sum(path.stat().st_size for path in directory.iterdir()) < 10e6
    assert (directory / "model.safetensors").stat().st_size < 10e6


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("placement", ["uniform", "photo"])
def test_answers_as_the_card_says(shipped: tuple[Any, Any], record: dict[str, Any], placement: str, task: str) -> None:
    """Within three standard errors of the card, on other scenes."""
    torch.manual_seed(0)
    scenes = [draw_scene(SEED, i, placement) for i in range(N)]
    questions = [question_about(scene.things, task, SEED, i) for i, scene in enumerate(scenes)]
    found = summarise(task, questions, answers_of(*shipped, scenes, questions, NEW_TOKENS[task], batch=20))["accuracy"]
    said = record["held_out"][placement][task]["accuracy"]
    assert found > said - 3 * max(0.02, (said * (1 - said) / N) ** 0.5)


def test_card_has_the_numbers_of_the_record(directory: Path, record: dict[str, Any]) -> None:
    card = (directory / "README.md").read_text()
    for scores in record["held_out"].values():
        assert f"| {100 * scores['where']['accuracy']:.1f} ± " in card
        assert f"| {scores['presence']['f1']:.3f} |" in card
    assert record["recipe"]["held_out"] >= 2000
