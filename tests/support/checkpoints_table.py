"""docs/checkpoints.md: what was tried with the files of each checkpoint, and what was never run. A program of its own (`make checkpoints`).

    python tests/support/checkpoints_table.py DWARFS   measures every dwarf under DWARFS into docs/checkpoints.json, and writes the page
    python tests/support/checkpoints_table.py          writes the page from the measurements that are there

A dwarf has the small files of a real checkpoint, its geometry, and eight small layers of random weights (`build.py` beside those files).
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
MEASURED, PAGE = DOCS / "checkpoints.json", DOCS / "checkpoints.md"
FILES = ("config", "processor", "template", "generation config", "tokenizer", "weight names")

HEAD = """# Checkpoints: what was tried, and what was not

No weights of any of these checkpoints were ever loaded here. Tried were *dwarfs*: the checkpoint's own small files and the geometry of its
vision tower, with eight small language-model layers of random weights. They show prompts, layouts, attention rows and exactness; they say
nothing about scores or speed. `biaskit models check MODEL` runs the same probes on the real weights. Written by `make checkpoints`.

Measured on the CPU in float32 with transformers {transformers} and torch {torch}.

- **files**: config, processor, template, generation config, tokenizer, weight names. V: verbatim. C: constants of somebody's code or test.
  R: rebuilt from the conversion script. –: not seen.
- **prompt**: the template rendered by plain jinja2 is the prompt to the letter.
- **tokens**: visual tokens of a picture of 640 × 480 pixels.
- **layout**: how far, in cells, a token looks from where the layout says, at most: a tower of mean colours, a picture of gradients, three
  sizes; and how many lit spots were seen by the cell that covers them.
- **row**: the last token's attention, as recorded under sdpa, against eager attention's own weights.
- **commands**: releases of transformers under which it went through `models check`, `calibrate --layers all`, `priors show`, `heatmap`,
  `prune --compare --overlay`, `validate` of pope and refcoco in batches of two and its report (`tests/support/every_command.py`);
  †: with torchvision's processors as well as with PIL's.
- **exact**: the largest difference of a logit from a slow reference without a cache, 25 % kept from layer 2 on / from layer 0 on; unpruned.

| checkpoint | files | prompt | tokens | layout | row | exact | commands | boxes | region asked as |
|---|---|---|---|---|---|---|---|---|---|
"""

ASKING = """
## How each family asks, and where that was published

A family that has published no words of its own is asked as LLaVA-1.5 is (arXiv 2310.03744). `--wording FILE` replaces any of them. Boxes:
`part` counts fractions of what the model saw, `thousand` thousandths of the image, `pixels` those of the image as resized.

| family | boxes | region | short answer | yes or no |
|---|---|---|---|---|
"""


def prompt_is_the_template(loaded):
    """Render the chat template without the stock library."""
    import jinja2

    from biaskit.families.base import chat_text

    def generation(parser):
        next(parser.stream)
        return parser.parse_statements(["name:endgeneration"], drop_needle=True)

    kind = type("Generation", (jinja2.ext.Extension,), {"tags": {"generation"}, "parse": lambda _self, parser: generation(parser)})
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", kind])
    content = [{"type": "image"}, {"type": "text", "text": "Is there a dog?"}]
    template = environment.from_string(loaded.processor.chat_template)
    text = template.render(
        messages=[{"role": "user", "content": content}], add_generation_prompt=True, **loaded.processor.tokenizer.special_tokens_map
    )
    return text == chat_text(loaded.processor, "Is there a dog?")


def measure(directory):
    """Measure one dwarf."""
    import torch
    import transformers
    from PIL import Image
    from with_torchvision import made

    from biaskit.engine.check import check_checkpoint
    from biaskit.families.checkpoints.load import load_model

    loaded = load_model(str(directory), device="cpu", dtype="float32")
    ready = loaded.family.prepare(loaded.processor, loaded.model.config, [[Image.new("RGB", (640, 480))]], ["Where?"])
    probes = {one.probe: one for one in check_checkpoint(loaded)}
    assert all(one.passed is not False for one in probes.values()), (directory.name, probes)
    rows, exact = probes["attention row"].numbers, probes["25 % kept"].numbers
    return {
        "prompt": prompt_is_the_template(loaded),
        "tokens": len(ready.layouts[0]),
        "cells": max(off for size in made(directory)["sizes"].values() for off in size["off"].values()),
        "spots": int(probes["lit spots"].numbers["spots"]),
        "row": rows["error"],
        "exact": [value for name, value in exact.items() if name.startswith("layer")],
        "unpruned": exact["unpruned"],
        "transformers": transformers.__version__,
        "torch": torch.__version__.split("+")[0],
    }


def seen_files(folder):
    """Hub id → what of each file was seen, from the folder's own table."""
    found = {}
    for line in (folder / "tables.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) != 7 or "/" not in cells[0]:
            if found:
                break
            continue
        marks = ["C + R" if cell.startswith("C + R") else cell.split()[0].strip(",:;(") for cell in cells[1:]]
        marks = [mark if mark in ("V", "C", "R", "C + R", "–") else "R" if mark == "as" else "–" for mark in marks]
        for name in {cells[0].replace("8B/2B", size) for size in ("8B", "2B")}:
            found[name] = marks
    return found


def form(convention):
    """How boxes are written, on one line: what numbers count, and how whole numbers stand."""
    if convention.units not in ("thousand", "pixels"):
        return convention.units
    written = " ".join(convention.written.replace("```json", "").replace("```", "").split()).replace("{{", "{").replace("}}", "}")
    return cell(f"{convention.units}: `{written}`")


def cell(text):
    """A text as a cell of a table has it."""
    return text.replace("\n", "⏎").replace("|", "\\|")


def asking():
    """How each family asks: families that ask alike share a row."""
    from biaskit.families import families

    rows = {}
    for _, family in families:
        if family.__module__.startswith("biaskit."):
            wording = family.wording
            sources = [getattr(wording, f"{name}_source") for name in wording.templates()]
            said = [cell(f"`{text}` ({source})") for text, source in zip(wording.templates().values(), sources, strict=True)]
            rows.setdefault((form(family.box_convention), *said), []).append(family.title)
    return "".join(f"| {' | '.join([', '.join(titles), *row])} |\n" for row, titles in rows.items())


def page(measured, files):
    """The page: the checkpoints that were tried, those that were not, and how each family asks."""
    from biaskit.families import families
    from biaskit.families.checkpoints.catalog import CHECKPOINTS

    one = next(iter(measured.values()))
    lines = [HEAD.format(transformers=one["transformers"], torch=one["torch"])]
    tried = {known.hub_id.split("/")[-1]: (short, known) for short, known in CHECKPOINTS.items()}
    for name, found in measured.items():
        short, known = tried.pop(name)
        family = families.get(known.model_type)
        marks = " ".join(mark.replace(" ", "") for mark in files[known.hub_id])
        exact = " / ".join(f"{value:.0e}" for value in found["exact"])
        cells = [
            f"{known.hub_id} (`{short}`)", marks, "equal" if found["prompt"] else "differs", str(found["tokens"]),
            f"{found['cells']:.2f}; {found['spots']} of {found['spots']} spots", f"{found['row']:.0e}", f"{exact}; {found['unpruned']:.0e}",
            ", ".join(f"{one}{'†' if one in found.get('torchvision', []) else ''}" for one in found.get("commands", [])) or "–",
            form(family.box_convention), cell(family.wording.region_source),
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |\n")
    lines.append(
        "\n## Never run\n\n- Weights of any checkpoint, so no score and no prior of a real model; GPUs, half precision on real files.\n"
    )
    lines.append("- Files of these were not seen. Their class runs, as a tiny model with a tokenizer and template of our own:\n")
    for kind in sorted({known.model_type for _, known in tried.values()}):
        names = [f"{known.hub_id} (`{short}`)" for short, known in tried.values() if known.model_type == kind]
        lines.append(f"  - {families.get(kind).title}: {', '.join(names)}\n")
    none = [f"{family.title} (`{name}`)" for name, family in families if name not in {known.model_type for known in CHECKPOINTS.values()}]
    lines.append(f"- Of these families no checkpoint has a short name: {', '.join(none)}.\n")
    return "".join([*lines, ASKING, asking()])


if __name__ == "__main__":
    if len(sys.argv) > 1:
        from checkpoints import DWARFS

        before = json.loads(MEASURED.read_text(encoding="utf-8"))  # which commands ran is written down by hand
        by_hand = {name: {key: before[name].get(key, []) for key in ("commands", "torchvision")} for name in DWARFS}
        made_of = {name: measure(Path(sys.argv[1]) / name) | by_hand[name] for name in DWARFS}
        MEASURED.write_text(json.dumps(made_of, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(
        page(json.loads(MEASURED.read_text(encoding="utf-8")), seen_files(Path(os.environ["BIASKIT_REAL_CHECKPOINTS"]))), encoding="utf-8"
    )
    print(PAGE)
