"""What the demo shows at the end: one question with the tokens each method keeps of its image, and a page with all results."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image

from biaskit.demo.evaluate import answers_of
from biaskit.display import html_table
from biaskit.engine.prune import prune
from biaskit.families.checkpoints.load import Loaded
from biaskit.figures.overlay import Kept, overlay
from biaskit.files import write_file
from biaskit.images.scenes.draw import Scene
from biaskit.images.scenes.held_out import NEW_TOKENS
from biaskit.images.scenes.questions import Question
from biaskit.images.scenes.vocabulary import read_box
from biaskit.prior.value import Prior
from biaskit.pruners import Pruner
from biaskit.text import for_html

Method = tuple[str, Pruner, Prior | None]


def draw_example(
    loaded: Loaded, scene: Scene, question: Question, methods: Sequence[Method], depth: int, out: Path, force: bool
) -> dict[str, str]:
    """Draw what each method keeps of one picture, and the box that the model then answers; return method → answer."""
    picture = Image.fromarray(scene.pixels)
    layout = loaded.family.prepare(loaded.processor, loaded.model.config, [[picture]], [question.text]).layouts[0]
    panels, answers = [], {}
    for name, pruner, prior in methods:
        with torch.inference_mode(), prune(loaded.model, pruner, prior=prior) as pruning:
            (answers[name],) = answers_of(loaded.model, loaded.processor, [scene], [question], NEW_TOKENS["where"])
        box = read_box(answers[name])
        kept = pruning.samples[0].indices.cpu().numpy()
        panels.append(Kept(name, kept, answers[name] if box is None else "", str(depth), box=None if box is None else _share(box, picture)))
    truth = None if question.box is None else _share(question.box, picture)
    overlay(picture, layout, panels, title=question.text, model=loaded.name, truth=truth, out=out, force=force)
    return answers


def _share(box: Sequence[float], picture: Image.Image) -> tuple[float, float, float, float]:
    left, top, right, bottom = box
    return left / picture.width, top / picture.height, right / picture.width, bottom / picture.height


def write_page(
    out: Path,
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    title: str,
    verdict: str,
    figures: Sequence[tuple[Path, str]],
    force: bool,
) -> None:
    """Write one HTML file with everything in it: the table, the verdict in words, and the figures."""
    shown = "".join(
        f'<figure><img alt="{for_html(caption)}" src="data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}">'
        f"<figcaption>{for_html(caption)}</figcaption></figure>"
        for path, caption in figures
    )
    told = "".join(f"<ul>{''.join(lines)}</ul>" if item else "".join(lines) for item, lines in _grouped(verdict))
    page = f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>biaskit demo</title><style>
:root {{ color-scheme: light dark; }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }}
table {{ border-collapse: collapse; }} th, td {{ padding: .3rem .8rem; text-align: left; border-bottom: 1px solid #8886; }}
caption {{ text-align: left; font-weight: 600; padding-bottom: .5rem; }}
h2 {{ font-size: 1.1rem; margin: 1.2rem 0 .3rem; }} ul {{ margin: 0; }}
figure {{ margin: 2rem 0; }} img {{ max-width: 100%; background: #fff; }} figcaption {{ opacity: .8; }}
</style></head><body><h1>Does debiasing help the embedded model?</h1>
{html_table(head, rows, title)}
{told}{shown}</body></html>
"""
    write_file(out, page.encode(), force)


def _grouped(verdict: str) -> list[tuple[bool, list[str]]]:
    """The lines of the verdict: a heading for each K, items for what is compared there, else paragraphs."""
    kinds = [(text, "li" if text.startswith("  ") else "h2" if text.startswith("K = ") else "p") for text in verdict.splitlines()]
    made = [(kind == "li", f"<{kind}>{for_html(text.strip())}</{kind}>") for text, kind in kinds]
    return [(item, [line for _, line in run]) for item, run in itertools.groupby(made, key=lambda one: one[0])]
