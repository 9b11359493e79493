"""What happens in which layer of the embedded model: where text begins to affect attention, and where the image has been read.

`python -m biaskit.demo.training.layers --model DIR --out DIR` writes layers.json and figures. Attention rows come from
`biaskit.engine.attention` on the stock model. Chance is 0.25, the share of tokens that is kept; attention that prefers things to
background, regardless of the question, reaches `any_thing`. So the report also says how often the target outranks the *other* things:
`preference`, 0.5 where the question has no effect.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from biaskit.demo.evaluate import open_model
from biaskit.demo.training.architectures import architecture_of
from biaskit.demo.training.packing import SLOT, pack
from biaskit.demo.training.shared_prefix import SharedPrefix
from biaskit.demo.training.vision_stage import to_pixel_values
from biaskit.engine.attention import attention_rows
from biaskit.families import families
from biaskit.files import check_writable, write_file
from biaskit.images.scenes.draw import PATCHES, Scene, draw_scene
from biaskit.images.scenes.held_out import SEED, iou_of
from biaskit.images.scenes.questions import DESCRIBE, Question, where
from biaskit.images.scenes.vocabulary import VISUAL

CALIBRATION_SEED = 7000
KEPT = 36
"""A quarter of the 144 visual tokens."""
GENERIC = DESCRIBE[1]
Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class QuestionedScenes:
    """Scenes and one where-question about each."""

    scenes: list[Scene]
    questions: list[Question]

    @property
    def target(self) -> NDArray[np.bool_]:
        """[n, 144] visual tokens of the thing asked about."""
        return np.stack([(scene.owner.ravel() == q.target) for scene, q in zip(self.scenes, self.questions, strict=True)])

    @property
    def others(self) -> NDArray[np.bool_]:
        """[n, 144] visual tokens of the other things."""
        return np.stack([(scene.owner.ravel() >= 0) for scene in self.scenes]) & ~self.target


def asked(placement: str, n: int, seed: int) -> QuestionedScenes:
    """Draw scenes and their where-questions; only those whose thing covers a visual token."""
    scenes: list[Scene] = []
    questions: list[Question] = []
    index = 0
    while len(scenes) < n:
        scene = draw_scene(seed, index, placement)
        question = where(np.random.default_rng([seed, index, 7]), scene.things)
        if (scene.owner == question.target).any():
            scenes.append(scene)
            questions.append(question)
        index += 1
    return QuestionedScenes(scenes, questions)


def rows_of(model: Any, processor: Any, scenes: Sequence[Scene], prompts: Sequence[str], batch: int = 50) -> Floats:
    """Return the last prompt token's attention to the visual tokens, head mean, [layers, n, 144]."""
    family = families.get(model.config.model_type)
    depth = model.config.text_config.num_hidden_layers
    found = []
    for start in range(0, len(scenes), batch):
        images = [[Image.fromarray(scene.pixels)] for scene in scenes[start : start + batch]]
        prepared = family.prepare(processor, model.config, images, list(prompts[start : start + batch]))
        rows = attention_rows(model, prepared.inputs, range(depth)).numpy()
        found.append(np.stack([rows[:, i, layout.positions] for i, layout in enumerate(prepared.layouts)], 1))
    return np.concatenate(found, 1)


@contextmanager
def shuffled(model: Any, seed: int = 0) -> Iterator[None]:
    """Shuffle the visual tokens of every image differently: what remains in the mean map is due to the sequence position."""
    generator = torch.Generator().manual_seed(seed)

    def mix(module: Any, inputs: Any, output: Tensor) -> Tensor:
        del module, inputs
        images = output.view(-1, VISUAL, output.shape[-1])
        order = torch.stack([torch.randperm(VISUAL, generator=generator) for _ in images])
        return images.gather(1, order[..., None].expand_as(images)).view_as(output)

    handle = architecture_of(model).projector(model).register_forward_hook(mix)
    try:
        yield
    finally:
        handle.remove()


def top(scores: Floats, n: int) -> NDArray[np.bool_]:
    """[..., 144] scores → the n highest of each row, bool."""
    kept = np.zeros(scores.shape, bool)
    np.put_along_axis(kept, np.argsort(-scores, -1, kind="stable")[..., :n], True, -1)
    return kept


def recall(scores: Floats, target: NDArray[np.bool_], n: int = KEPT) -> list[float]:
    """Return per layer the mean share of the target's tokens among the n best; scores [layers, n or 1, 144]."""
    kept = top(np.broadcast_to(scores, (len(scores), *target.shape)), n)
    return [float(((mine & target).sum(-1) / target.sum(-1)).mean()) for mine in kept]


def preference(scores: Floats, target: NDArray[np.bool_], others: NDArray[np.bool_]) -> list[float]:
    """Return per layer how often a token of the target outranks a token of the scene's other things (area under the ROC curve).

    0.5: the question has no effect, even if the attention prefers things to background.
    """
    found = []
    for mine in scores:
        areas = [
            float((np.greater.outer(row[t], row[o]) + 0.5 * np.equal.outer(row[t], row[o])).mean())
            for row, t, o in zip(np.broadcast_to(mine, target.shape), target, others, strict=True)
            if o.any()
        ]
        found.append(float(np.mean(areas)))
    return found


def map_facts(rows: Floats) -> list[dict[str, float]]:
    """Return per layer what the mean map [layers, n, 144] looks like; values relative to uniform attention over visual tokens."""
    facts = []
    edge = np.ones((PATCHES, PATCHES), bool)
    edge[1:-1, 1:-1] = False
    for mine in rows:
        mean = mine.mean(0)
        grid = (mean / mean.sum()).reshape(PATCHES, PATCHES)
        halves = np.corrcoef(mine[::2].mean(0), mine[1::2].mean(0))[0, 1]
        facts.append(
            {
                "bottom_half": float(grid[PATCHES // 2 :].sum()),
                "last_row": float(grid[-1].mean() * grid.size),
                "ring": float(grid[edge].mean() * grid.size),
                "max": float(grid.max() * grid.size),
                "visual_mass": float(mean.sum()),
                "split_half_r": float(halves),
            }
        )
    return facts


def correlations(one: Floats, other: Floats) -> list[float]:
    """Return per layer the correlation of two mean maps; [layers, n, 144] each."""
    return [float(np.corrcoef(a.mean(0), b.mean(0))[0, 1]) for a, b in zip(one, other, strict=True)]


@torch.inference_mode()
def surviving(model: Any, data: QuestionedScenes, layer: int, kept: NDArray[np.bool_] | None, batch: int = 25) -> float:
    """Return the share of right boxes (IoU ≥ 0.5) when layers from `layer` on see only the `kept` visual tokens [n, 144]."""
    run, architecture = SharedPrefix(model, SLOT), architecture_of(model)
    right = 0
    for start in range(0, len(data.scenes), batch):
        part = slice(start, start + batch)
        scenes, questions = data.scenes[part], data.questions[part]
        features = architecture.see(architecture.tower(model), to_pixel_values(np.stack([s.pixels for s in scenes])))
        packed = pack([[q] for q in questions], np.stack([s.owner.ravel() for s in scenes]))
        keep = None if kept is None else (layer, torch.from_numpy(kept[part]))
        with torch.autocast("cpu", torch.bfloat16):
            answers = run.answer(features, packed.ids, packed.lengths, 4, keep)[:, 0].tolist()
        right += sum(iou_of(" ".join(architecture.words[i] for i in ids), q) >= 0.5 for ids, q in zip(answers, questions, strict=True))
    return right / len(data.scenes)


def study(directory: Path, n: int, say: Any) -> tuple[dict[str, Any], dict[str, Floats]]:
    """Run all measurements; return the report and the mean maps of the figures, name → [layers, 144]."""
    model, processor = open_model(directory)
    depth = model.config.text_config.num_hidden_layers
    report: dict[str, Any] = {"n": n, "kept": KEPT, "recall": {}, "preference": {}, "maps": {}, "correlation": {}}
    maps: dict[str, Floats] = {}
    priors: dict[str, dict[str, Floats]] = {}
    for placement in ("uniform", "photo"):
        test, calibration = asked(placement, n, SEED), asked(placement, n, CALIBRATION_SEED)
        rows = rows_of(model, processor, test.scenes, [q.text for q in test.questions])
        generic = rows_of(model, processor, calibration.scenes, [GENERIC] * n)
        task = rows_of(model, processor, calibration.scenes, [q.text for q in calibration.questions])
        priors[placement] = {"generic": generic.mean(1, keepdims=True), "task": task.mean(1, keepdims=True)}
        report["recall"][placement] = {
            "raw": recall(rows, test.target),
            **{f"debiased_{name}": recall(rows / (prior + 1e-7), test.target) for name, prior in priors[placement].items()},
            **{f"prior_{name}_alone": recall(prior, test.target) for name, prior in priors[placement].items()},
            "any_thing": float(np.minimum(1, KEPT / (test.target | test.others).sum(-1)).mean()),
            "target_mass": [float((layer * test.target).sum(-1).mean()) for layer in rows],
        }
        report["preference"][placement] = {
            "raw": preference(rows, test.target, test.others),
            **{
                f"debiased_{name}": preference(rows / (prior + 1e-7), test.target, test.others) for name, prior in priors[placement].items()
            },
        }
        maps |= {f"{placement}, neutral prompt": generic.mean(1), f"{placement}, where prompts": task.mean(1)}
        report["maps"] |= {f"{placement}/generic": map_facts(generic), f"{placement}/where": map_facts(task)}
        report["correlation"][f"{placement}: generic, where"] = correlations(generic, task)
        say(f"recall, {placement}: raw {np.round(report['recall'][placement]['raw'], 2).tolist()}")
    report |= _controls(model, processor, n, report, maps, say)
    report["pruning"] = _pruning(model, processor, asked("uniform", n, SEED), priors["uniform"], depth, say)
    return report, maps


def _controls(model: Any, processor: Any, n: int, report: dict[str, Any], maps: dict[str, Floats], say: Any) -> dict[str, Any]:
    """Measure the mean maps on empty scenes, with shuffled patches, and of an untrained model."""
    uniform = [draw_scene(CALIBRATION_SEED, i, "uniform") for i in range(n)]
    empty = [draw_scene(CALIBRATION_SEED, i, "empty") for i in range(n)]
    base = rows_of(model, processor, uniform, [GENERIC] * n)
    found = {"empty": rows_of(model, processor, empty, [GENERIC] * n)}
    with shuffled(model):
        found["shuffled"] = rows_of(model, processor, uniform, [GENERIC] * n)
    torch.manual_seed(0)
    fresh = architecture_of(model).make_model(model.config.text_config.num_hidden_layers).eval()
    found["untrained"] = rows_of(fresh, processor, uniform, [GENERIC] * n)
    for name, rows in found.items():
        maps[f"{name}, neutral prompt"] = rows.mean(1)
        report["maps"][name] = map_facts(rows)
        report["correlation"][f"uniform, {name}"] = correlations(base, rows)
        say(f"map, {name}: r with uniform {np.round(report['correlation'][f'uniform, {name}'], 2).tolist()}")
    return report


def _pruning(model: Any, processor: Any, test: QuestionedScenes, priors: dict[str, Floats], depth: int, say: Any) -> dict[str, Any]:
    """Ask where-questions with only some visual tokens from layer K on: none; a quarter and a tenth by several scores of layer K − 1."""
    n = len(test.scenes)
    rng = np.random.default_rng(0)
    rows = rows_of(model, processor, test.scenes, [q.text for q in test.questions])
    nothing = np.zeros((n, PATCHES**2), bool)
    report: dict[str, Any] = {"n": n, "all": surviving(model, test, depth, None)}
    report["none"] = [surviving(model, test, layer, nothing) for layer in range(depth)]
    say(f"boxes with all tokens {report['all']:.3f}; with none from layer K on: {np.round(report['none'], 3).tolist()}")
    for layer in range(2, min(depth, 6)):
        mine = rows[layer - 1]
        scores = {
            "random": rng.random(mine.shape, np.float32),
            "raw": mine,
            **{f"debiased_{name}": mine / (prior[layer - 1] + 1e-7) for name, prior in priors.items()},
            **{f"prior_{name}_alone": np.broadcast_to(prior[layer - 1], mine.shape) for name, prior in priors.items() if name == "task"},
            "oracle": test.target + rng.random(mine.shape, np.float32) * 0.5,
        }
        report[f"K={layer}"] = {
            name: {str(size): surviving(model, test, layer, top(score, size)) for size in (KEPT, 14)} for name, score in scores.items()
        }
        say(f"K={layer}: " + "  ".join(f"{name} {list(values.values())}" for name, values in report[f"K={layer}"].items()))
    return report


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the report and its figures."""
    parser = argparse.ArgumentParser(prog="python -m biaskit.demo.training.layers", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--n", type=int, default=300, help="scenes per measurement")
    given = parser.parse_args(arguments)
    check_writable(given.out / "layers.json")
    report, maps = study(given.model, given.n, lambda line: print(line, file=sys.stderr, flush=True))
    write_file(given.out / "layers.json", json.dumps(report, indent=1) + "\n")
    from biaskit.demo.figures import draw_maps, draw_recall

    draw_maps(maps, given.out / "bias-maps.png")
    draw_recall(report, given.out / "recall-by-layer.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
