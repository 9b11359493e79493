"""Ask the saved model held-out questions through the stock class, its processor, its chat template, and generate()."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from biaskit.demo.figures import draw_answers
from biaskit.engine.greedy import greedy_settings
from biaskit.families import families
from biaskit.families.checkpoints.processors import load_processor
from biaskit.images.scenes.draw import Scene, draw_scene
from biaskit.images.scenes.held_out import NEW_TOKENS, SEED, TASKS, question_about, summarise
from biaskit.images.scenes.questions import Question


def open_model(directory: Path, device: str = "cpu") -> tuple[Any, Any]:
    """Return (stock model in float32, processor) of a written directory."""
    from transformers import AutoModelForImageTextToText

    model = AutoModelForImageTextToText.from_pretrained(str(directory), dtype=torch.float32).to(device).eval()
    return model, load_processor(families.get(model.config.model_type), str(directory))


@torch.inference_mode()
def answers_of(
    model: Any, processor: Any, scenes: Sequence[Scene], questions: Sequence[Question], n_new: int, batch: int = 50
) -> list[str]:
    """Return the greedy answers of the stock generate(), special tokens left out."""
    family = families.get(model.config.model_type)
    found: list[str] = []
    for start in range(0, len(scenes), batch):
        images = [[Image.fromarray(scene.pixels)] for scene in scenes[start : start + batch]]
        prompts = [question.text for question in questions[start : start + batch]]
        inputs = {name: value.to(model.device) for name, value in family.prepare(processor, model.config, images, prompts).inputs.items()}
        output = model.generate(**inputs, **greedy_settings(model), max_new_tokens=n_new)
        found += processor.tokenizer.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return found


def evaluate(directory: Path, n: int, seed: int, say: Callable[[str], None], device: str = "cpu") -> dict[str, dict[str, dict[str, float]]]:
    """Return placement → task → scores on `n` questions each, one per scene."""
    model, processor = open_model(directory, device)
    report: dict[str, dict[str, dict[str, float]]] = {}
    for placement in ("uniform", "photo"):
        began = time.monotonic()
        scenes = [draw_scene(seed, i, placement) for i in range(n)]
        report[placement] = {}
        for task in TASKS:
            questions = [question_about(scene.things, task, seed, i) for i, scene in enumerate(scenes)]
            scores = summarise(task, questions, answers_of(model, processor, scenes, questions, NEW_TOKENS[task]))
            report[placement][task] = {name: round(value, 4) for name, value in scores.items()}
            told = "  ".join(f"{name} {value:.3f}" for name, value in scores.items() if name != "n")
            say(f"held out, {placement}, {task}: {told}  ({time.monotonic() - began:.0f} s)")
    return report


def draw_examples(directory: Path, figure: Path, device: str = "cpu", n: int = 18) -> None:
    """Draw the first held-out scenes with true and predicted boxes; rows of uniform and photo-like ones alternate."""
    model, processor = open_model(directory, device)
    scenes = [draw_scene(SEED, i, ("uniform", "photo")[i // 6 % 2]) for i in range(n)]
    questions = [question_about(scene.things, "where", SEED, i) for i, scene in enumerate(scenes)]
    draw_answers(scenes, questions, answers_of(model, processor, scenes, questions, NEW_TOKENS["where"]), figure)
