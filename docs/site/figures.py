"""Draw pictures of docs/ again, from the numbers that lie beside them: `make figures`. The others' commands stand beneath them."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from biaskit.bench import growth, selection_report
from biaskit.bench.report import describe
from biaskit.demo.figures import draw_recall
from biaskit.figures.methods import looks
from biaskit.figures.style import house_style, write_figure
from biaskit.validation.report.curves import Curves, draw_curves
from biaskit.validation.results.labels import UNPRUNED
from biaskit.validation.statistics.resampling import Estimate
from biaskit.validation.studies.conditions import Condition
from biaskit.validation.studies.enough import Convergence
from biaskit.validation.studies.enough_figure import draw_enough
from biaskit.validation.studies.transfer import Asking, Study
from biaskit.validation.studies.transfer_figure import draw_transfer

DOCS = Path(__file__).parents[1]


def read(path: Path) -> Any:
    """JSON."""
    return json.loads(path.read_text(encoding="utf-8"))


def studies(out: Path) -> None:
    """What `biaskit study` drew, from its study.json."""
    for name in ("prompts", "images", "models", "content-free"):
        found = read(DOCS / f"studies/{name}.json")
        how = found["asking"] or {}
        conditions = [Condition(**condition) for condition in found["conditions"]]
        study = Study(found["axis"], conditions, found["samples"], found["maps"], found["scores"], Asking(**how))
        title = "Priors from pictures without content" if found["study"] == "content-free" else ""
        draw_transfer(study, out / f"studies/{name}.png", title=title, force=True)
    found = read(DOCS / "studies/enough.json")
    title = f"How many images are enough? {found['condition']['model']}, {found['condition']['data']}"
    draw_enough([Convergence(**row) for row in found["rows"]], out / "studies/enough.png", title=title, force=True)


def benchmarks(out: Path) -> None:
    """Selections and growth, from what `biaskit bench` wrote."""
    write_figure(selection_report.draw(read(DOCS / "bench/selection.json")), out / "bench/selection.png")
    found = read(DOCS / "bench/growth.json")
    growth.draw(found.get("growth", found), out / "bench/growth.png", describe(found["machine"]))


SHOWN = (
    "random", "fastv", "fastv+tasks", "fastv@rows=question", "fastv@rows=question+question", "fastv@debias=null@rows=question",
    "fastv@debias=null@mode=p_log@rows=question", "d2pruner@strength=0", "d2pruner+tasks", "d2pruner@debias=null@rows=question",
    "idpruner", "divprune@positions=original", "cdpruner@positions=original", "visionzip@positions=original",
    "visionzip@attend=mean@positions=original",
)  # fmt: skip
"""Methods that the figures of docs/debiasing.md show, of some fifty."""


def curves(folder: str, out: Path, shown: Sequence[str] | None = None) -> None:
    """Score against retention, from a report's CSV: of the methods `shown`, of all if None."""
    source = DOCS / folder
    csvs = source / "csv" if (source / "csv").is_dir() else source
    panels: dict[str, Curves] = {}
    with (csvs / "scores.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if shown is None or row["method"] in (UNPRUNED, *shown)]
    shares = {row["budget"]: float(row["retention"]) for row in rows if row["method"] != UNPRUNED}
    drawn = {row["method"] for row in rows} - {UNPRUNED}
    for row in rows:
        panel = panels.setdefault(row["task"], Curves(row["task"], {}, None, f"{row['metric']}, points"))
        estimate = Estimate(*(100 * float(row[name]) for name in ("score", "score_low", "score_high")))
        if row["method"] == UNPRUNED:
            panels[row["task"]] = Curves(panel.title, panel.lines, estimate, panel.label)
        else:
            panel.lines.setdefault(row["method"], []).append((float(row["retention"]), estimate))
    if (csvs / "average.csv").is_file():
        average: dict[str, list[tuple[float, Estimate]]] = {}
        with (csvs / "average.csv").open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                if row["method"] in drawn and not row["budget"].isdecimal():
                    one = Estimate(*(100 * float(row[name]) for name in ("relative", "relative_low", "relative_high")))
                    average.setdefault(row["method"], []).append((by_percent(row["budget"], shares), one))
        panels["average"] = Curves("average over tasks", average, Estimate(100, 100, 100), "% of the unpruned model")
    methods = list(dict.fromkeys(method for panel in panels.values() for method in panel.lines))
    figure = draw_curves(list(panels.values()), looks(methods))
    place = out / folder / "figures" if (source / "figures").is_dir() else out / folder
    with house_style():
        write_figure(figure, place / "score-by-retention.png")


def by_percent(budget: str, shares: dict[str, float]) -> float:
    """The share that a budget's name says."""
    return shares[budget] if budget in shares else float(budget.removesuffix("%")) / 100


def main(out: Path = DOCS) -> None:
    """Draw everything."""
    studies(out)
    benchmarks(out)
    curves("validate", out)
    for model in ("demo", "demo-qwen"):
        curves(f"debiasing/{model}", out, SHOWN)
    for folder in ("demo", "demo/qwen"):
        draw_recall(read(DOCS / folder / "layers.json"), out / folder / "recall-by-layer.png")


if __name__ == "__main__":
    main()
