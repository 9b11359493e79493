"""The model card of the embedded model, from the record of its training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from biaskit.demo.training.architecture import HEADS, HIDDEN, INNER
from biaskit.demo.training.architectures import find
from biaskit.demo.training.language_stage import COARSE, FINE, IMAGES, LEAD, QUESTIONS, SCAFFOLD_END, WATCHED
from biaskit.demo.training.vision_stage import BATCH
from biaskit.files import write_file

_CARD = """\
---
license: apache-2.0
pipeline_tag: image-text-to-text
library_name: transformers
---

# The embedded model of biaskit

A small multimodal language model that answers questions about drawn scenes. It exists so that positional bias and token pruning can be seen
on any machine in minutes; it knows nothing but coloured shapes. Stock class `{class}`:
no code of ours is needed to load it with `AutoProcessor` and `AutoModelForImageTextToText` (without torchvision, load the processor with
`biaskit.families.checkpoints.processors.load_processor`).

| part | what it is |
|---|---|
| vision tower | {tower}; patches of 14: 12 × 12 = 144 visual tokens; 4 layers, width 128 |
| language model | {decoder}, {layers} layers, width {hidden}, {heads} heads, inner width {inner}; {parameters:.2f} M parameters, float16 |
| words | {words}: 48 location words, the rest English; lower case, anything else is `<unk>` |
| prompt | `<s>user: {image} where is the small red circle ? assistant:` |
| answer | `<loc12> <loc03> <loc30> <loc20>`: x1 y1 x2 y2 in bins of 3.5 pixels |
| other questions | `is there a red circle ?` · `what colour is the small circle ?` · `what shape is the red object ?` |
| descriptions | `describe the image .` |

## How it was made

{command}, from nothing but code in the repository:
no pretrained weights, no data from elsewhere. Seed {seed}; training scenes: seed {scene_seed}, {scenes:,} of them (two of three placed
as in photographs, one uniform); torch {torch}, {minutes:.0f} minutes{resumed}.

1. **Vision tower**, {vision_steps} steps of {batch} images: every patch says which thing covers it and where its box
   is{boxes} (Muon and AdamW).
2. **Projector and language model** on the frozen tower's features, {language_steps} steps of {images} images with {questions} questions
   each: {total:,} questions (where 45 %, presence 34 %, attribute 16 %, describe 5 %). Questions about one image share its prefix.

### What was done to make it bind

Trained on answers alone, such a model learns to read *some* thing's box long before it finds the thing that was asked for.
{scaffold}
The first answer word counts 4 times, of a box the first two; location words have soft labels (σ = 0.8 bins).

## Held-out numbers

{n} questions per task and placement, one per scene, scenes of a seed that was never trained on; through the stock class, its processor,
chat template and `generate()`, greedy, float32. ± is half a 95 % interval. Half of the presence questions are to be answered "yes"; every
"no" recombines attributes that all occur in the scene.

| placement | boxes, IoU ≥ 0.5 | mean IoU | presence F1 | presence accuracy | attributes |
|---|---|---|---|---|---|
{rows}

Vision tower alone, share of patches that are right on held-out scenes:

| placement | covered | size | colour | shape | box error, pixels |
|---|---|---|---|---|---|
{tower_rows}

![Learning curves](curves.png)

The first held-out scenes, true boxes dashed:

![Answers](answers.png)

`training.json` holds the curves and all numbers of this page.

## What it is not

It has not read text or seen photographs. Scenes are clean and redundant: a thing covers 2 to 16 patches, and every one of them knows its
box, so methods that keep diverse tokens look better here than on photographs. Which layer finds the thing is partly a choice of the
training (see above), not a discovery.
"""
_SCAFFOLD = """Three helps; all but the upper bound of the first fade linearly to nothing over the first {end:.0%} of the steps of stage 2:

- The last prompt token's attention in layer {coarse_layer}, mean of the heads: a token of a thing that shares a named colour or shape with
  the phrase is to get {lead:g} times the attention of a token of any other thing (so that no box can be read off there), and never more.
  The upper bound is held throughout: the layer knows of the question, and its attention is still mostly about something else.
- {fine} of {heads} heads of layer {fine_layer} are drawn to the one thing that is meant.
- Projected visual tokens are pulled to the embeddings of the words for what they show, and a linear reader, discarded afterwards, must
  find {reader}.

That text steers attention in *these* layers is therefore put there; that it stays, and what the other layers do, is not."""
_NO_SCAFFOLD = """Projected visual tokens are pulled to the embeddings of the words for what they show, and a linear reader must find
{reader}, over the first {end:.0%} of the steps of stage 2; the attention is never helped."""


def write_card(record: Mapping[str, Any], directory: Path, parameters: int, layers: int) -> None:
    """Write README.md into the checkpoint's directory.

    Args:
        record: what `train` recorded. directory: of the checkpoint. parameters, layers: of the model.
    """
    recipe = record["recipe"]
    architecture = find(recipe["architecture"])
    helps = {
        **architecture.described, "end": SCAFFOLD_END, "lead": LEAD, "fine": WATCHED[FINE], "coarse_layer": COARSE, "fine_layer": FINE,
        "heads": HEADS,
    }  # fmt: skip
    rows = [
        f"| {place} | {100 * t['where']['accuracy']:.1f} ± {100 * t['where']['half_width']:.1f} % | {t['where']['miou']:.3f} "
        f"| {t['presence']['f1']:.3f} | {100 * t['presence']['accuracy']:.1f} ± {100 * t['presence']['half_width']:.1f} % "
        f"| {100 * t['attribute']['accuracy']:.1f} ± {100 * t['attribute']['half_width']:.1f} % |"
        for place, t in record["held_out"].items()
    ]
    tower = [
        f"| {place} | "
        + " | ".join(f"{100 * s[name]:.1f} %" for name in ("covered", "size", "colour", "shape"))
        + f" | {s['box_px']:.2f} |"
        for place, s in record["tower"].items()
    ]
    text = _CARD.format(
        **{name: text.replace("|", "\\|") for name, text in architecture.described.items()}, layers=layers, hidden=HIDDEN, heads=HEADS,
        inner=INNER, parameters=parameters / 1e6, words=len(architecture.words), command=_command(recipe),
        seed=recipe["seed"], scene_seed=1 + recipe["seed"], scenes=recipe["scenes"], torch=record["torch"], minutes=record["seconds"] / 60,
        resumed=" (since it was last resumed)" if record.get("resumed") else "", vision_steps=recipe["vision_steps"], batch=BATCH,
        language_steps=recipe["language_steps"], images=IMAGES, questions=QUESTIONS, total=recipe["language_steps"] * IMAGES * QUESTIONS,
        scaffold=(_SCAFFOLD if recipe["scaffold"] else _NO_SCAFFOLD).format(**helps), n=recipe["held_out"],
        rows="\n".join(rows), tower_rows="\n".join(tower),
    )  # fmt: skip
    write_file(directory / "README.md", text)


def _command(recipe: Mapping[str, Any]) -> str:
    """Return the command with the options that differ from the defaults, and the short one where there is one."""
    from biaskit.demo.training.recipe import Recipe

    defaults = vars(Recipe())
    names = {"scaffold": "--no-scaffold"}
    changed = [name for name, value in recipe.items() if value != defaults[name]]
    options = "".join(f" {names[name]}" if name in names else f" --{name.replace('_', '-')} {recipe[name]}" for name in changed)
    command = f"`python -m biaskit.demo.training.train --out DIR{options}`"
    if set(changed) - {"architecture", "seed"}:
        return command
    return "`make demo-model" + "".join(f" {name.upper()}={recipe[name]}" for name in changed) + f"`, that is {command}"
