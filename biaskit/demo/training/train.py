"""Train an embedded model from scratch: `make demo-model`, or `python -m biaskit.demo.training.train --out DIR`.

Scenes → vision tower → its features → projector and language model → stock checkpoint → held-out evaluation → curves and card. Stopped at
any moment, the same command resumes.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from biaskit.demo.evaluate import draw_examples, evaluate
from biaskit.demo.figures import draw_curves
from biaskit.demo.training.architecture import Architecture
from biaskit.demo.training.architectures import NAMES, architecture_of, find
from biaskit.demo.training.card import write_card
from biaskit.demo.training.language_stage import QUESTIONS, LanguageStage
from biaskit.demo.training.packing import pack
from biaskit.demo.training.pictures import Pictures, draw_pictures
from biaskit.demo.training.recipe import Recipe
from biaskit.demo.training.shared_prefix import SharedPrefix
from biaskit.demo.training.vision_stage import cache_features, check_vision, to_pixel_values, train_vision
from biaskit.errors import BiaskitError
from biaskit.files import staged, write_file
from biaskit.images.scenes.draw import draw_scene
from biaskit.images.scenes.held_out import SEED, iou_of
from biaskit.images.scenes.questions import ask

DEVELOPMENT_SEED = 8000
"""The seed of the held-out scenes of the learning curves; the final evaluation has another."""


def say(line: str) -> None:
    """Print a line of progress with the time of day."""
    print(f"{time.strftime('%H:%M:%S')}  {line}", file=sys.stderr, flush=True)


class Development:
    """Held-out numbers for the learning curves: greedy answers to a few hundred questions, through the shared-prefix pass."""

    def __init__(self, architecture: Architecture, tower: torch.nn.Module, device: str, scenes: int = 12) -> None:
        self.device, self.words = device, architecture.words
        drawn = {place: [draw_scene(DEVELOPMENT_SEED, i, place) for i in range(scenes)] for place in ("uniform", "photo")}
        self.sets = {}
        for place, mine in drawn.items():
            rng = np.random.default_rng([DEVELOPMENT_SEED, len(place)])
            questions = [[ask(rng, scene.things) for _ in range(QUESTIONS)] for scene in mine]
            with torch.inference_mode():
                values = to_pixel_values(np.stack([scene.pixels for scene in mine])).to(device)
                features = architecture.see(tower, values)
            self.sets[place] = (features, questions, np.stack([scene.owner.ravel() for scene in mine]))

    def __call__(self, run: SharedPrefix) -> dict[str, float]:
        """Return the share of right boxes (IoU ≥ 0.5), presence and attribute answers, both placements together."""
        right: dict[str, list[bool]] = {}
        for features, questions, owners in self.sets.values():
            packed = pack(questions, owners)
            with torch.autocast(self.device.split(":")[0], torch.bfloat16):
                answers = run.answer(features, packed.ids.to(self.device), packed.lengths.to(self.device), 4).tolist()
            for asked, given in zip(questions, answers, strict=True):
                for question, ids in zip(asked, given, strict=True):
                    text = " ".join(self.words[i] for i in ids)
                    good = iou_of(text, question) >= 0.5 if question.kind == "where" else text.split()[0] == question.answer.split()[0]
                    right.setdefault(f"dev_{question.kind}", []).append(good)
        return {name: round(float(np.mean(values)), 4) for name, values in sorted(right.items())}


def train(recipe: Recipe, work: Path, device: str) -> tuple[Any, dict[str, Any]]:
    """Run both stages; return the stock model and the record of the training: curves, tower scores, seconds."""
    began = time.monotonic()
    torch.manual_seed(recipe.seed)
    architecture = find(recipe.architecture)
    model = architecture.make_model().to(device)
    tower: Any = architecture.tower(model)
    stock_attention = tower.config._attn_implementation
    tower.set_attn_implementation("eager")  # its backward pass is several times faster than sdpa's on a CPU
    pictures: Pictures = draw_pictures(work, recipe.scenes, recipe.scene_seed, say)
    curves = {"vision": train_vision(architecture, tower, pictures, work, recipe.vision_steps, recipe.seed, device, say)}
    tower.set_attn_implementation(stock_attention)
    head = torch.load(work / "vision.pt", map_location=device, weights_only=True)["head"]
    tower_scores = {
        place: check_vision(architecture, tower, head, SEED, place, min(640, recipe.held_out), device) for place in ("uniform", "photo")
    }
    for place, scores in tower_scores.items():
        say(f"vision tower, held out, {place}: " + "  ".join(f"{name} {value:.3f}" for name, value in scores.items()))
    features = cache_features(architecture, tower, pictures, work, device, say)
    stage = LanguageStage(model, pictures, features, work, recipe.language_steps, recipe.seed, device, scaffold=recipe.scaffold)
    curves["language"] = stage.train(say, Development(architecture, tower, device, min(12, recipe.held_out)))
    return model, {"curves": curves, "tower": tower_scores, "seconds": time.monotonic() - began}


def write_model(model: Any, directory: Path) -> None:
    """Write weights in float16, configuration, processor, tokenizer and chat template."""
    with staged(directory) as stage:
        model.to("cpu", torch.float16).save_pretrained(stage)
    architecture_of(model).save_processor(directory)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the whole training from the command line."""
    parser = argparse.ArgumentParser(prog="python -m biaskit.demo.training.train", description="Train an embedded model from scratch.")
    defaults = Recipe()
    parser.add_argument("--out", type=Path, required=True, help="directory of the checkpoint")
    parser.add_argument("--work", type=Path, help="directory of scenes, features and states; default OUT.work")
    parser.add_argument("--architecture", choices=NAMES, default=defaults.architecture, help="the stock class it is built on")
    parser.add_argument("--seed", type=int, default=defaults.seed)
    parser.add_argument("--scenes", type=int, default=defaults.scenes)
    parser.add_argument("--vision-steps", type=int, default=defaults.vision_steps)
    parser.add_argument("--language-steps", type=int, default=defaults.language_steps)
    parser.add_argument("--no-scaffold", action="store_true", help="train without losses on the attention")
    parser.add_argument("--held-out", type=int, default=defaults.held_out, help="questions per task and placement")
    parser.add_argument("--threads", type=int, help="CPU threads; one gives steadier times than two on a busy machine")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    given = parser.parse_args(arguments)
    if given.threads:
        torch.set_num_threads(given.threads)
    work = given.work or given.out.with_name(given.out.name + ".work")
    work.mkdir(parents=True, exist_ok=True)
    recipe = Recipe(
        given.architecture, given.seed, given.scenes, given.vision_steps, given.language_steps, not given.no_scaffold, given.held_out
    )
    _same_recipe(work / "recipe.json", recipe)
    resumed = (work / "vision.pt").exists()
    model, record = train(recipe, work, given.device)
    write_model(model, given.out)
    record |= {"recipe": asdict(recipe), "resumed": resumed, "torch": torch.__version__}
    record["held_out"] = evaluate(given.out, recipe.held_out, SEED, say, given.device)
    write_file(given.out / "training.json", json.dumps(record, indent=1) + "\n")
    draw_curves(record, given.out / "curves.png")
    draw_examples(given.out, given.out / "answers.png", given.device)
    write_card(record, given.out, sum(weight.numel() for weight in model.parameters()), model.config.text_config.num_hidden_layers)
    say(f"written: {given.out}")
    return 0


def _same_recipe(path: Path, recipe: Recipe) -> None:
    """Refuse to resume another recipe's state."""
    told = {name: value for name, value in asdict(recipe).items() if name != "held_out"}
    # records made before there were two architectures lack the key
    if path.exists() and {"architecture": "llava", **json.loads(path.read_text())} != told:
        raise BiaskitError(
            f"{path.parent} holds the state of {path.read_text().strip()}", "give another --work, or delete it to start over"
        )
    write_file(path, json.dumps(told) + "\n")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BiaskitError as error:
        sys.exit(f"error: {error.message}\nhint: {error.hint}")
