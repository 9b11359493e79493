"""What `biaskit bench select` measured, as a table, as a figure and as files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from biaskit.bench.report import command, describe
from biaskit.bench.report import write as write_files
from biaskit.figures.methods import look_of
from biaskit.figures.style import FAINT, ShownFigure, house_style, plain_ticks, write_figure


def markdown(report: Mapping[str, Any]) -> str:
    """Return the table of a report, with the exponents below it."""
    rows = [
        "| selector | N | kept | ours, ms | authors', ms | authors' / ours | same tokens in float64 | theirs in float32 keeps of them |",
        "|---|---:|---:|---:|---:|---:|---|---:|",
    ]
    for line in report["lines"]:
        loop = line["authors_ms"]
        rows.append(
            f"| {line['method']} | {line['tokens']:,} | {line['kept']:,} | {_time(line['ours_ms'])} | {_time(loop) if loop else '–'} "
            f"| {line['speedup']:.1f} | {'yes' if line['same'] else 'no'} | {line['same_in_float32']} |"
            if loop
            else f"| {line['method']} | {line['tokens']:,} | {line['kept']:,} | {_time(line['ours_ms'])} | – | – | not compared | – |"
        )
    slopes = [f"{method}: ours {p['ours']:.2f}" + (f", authors' {p['authors']:.2f}" if "authors" in p else "")
              for method, p in report["exponents"].items() if "ours" in p]  # fmt: skip
    about = (
        f"Median (quartiles) of {report['repeats']}{', CPU time' if report['cpu_time'] else ''}; {describe(report['machine'])}; "
        f"d = {report['dim']}, {100 * report['retention']:g} % kept, made-up features, seed {report['seed']}"
        + (f"; a sample, in batches of {report['batch']}." if report["batch"] > 1 else ".")
    )
    fit = f"Time grows like N to the power of: {'; '.join(slopes)}." if slopes else ""
    return "\n".join([*rows, "", about, fit]).rstrip() + "\n"


def _time(times: Sequence[float]) -> str:
    digits = 2 if times[0] < 1 else 1
    return f"{times[0]:.{digits}f} ({times[1]:.{digits}f}–{times[2]:.{digits}f})"


def write(report: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write selection.json, selection.md and the figure selection.png into a folder; return their paths."""
    result = {"command": command(), **report}
    figure = folder / "selection.png"
    files = write_files(folder, "selection", result, f"`{command()}`\n\n{markdown(report).rstrip()}")
    write_figure(draw(report), figure)
    return [*files, figure]


@house_style()
def draw(report: Mapping[str, Any]) -> Figure:
    """Draw time against N on logarithmic axes, one panel per selector: ours, its authors' algorithm, and the fitted power of N."""
    methods = list(dict.fromkeys(line["method"] for line in report["lines"]))
    columns = min(4, len(methods))
    rows = -(-len(methods) // columns)
    figure = ShownFigure(figsize=(2.3 * columns + 0.5, 2.3 * rows + 0.2), layout="constrained")
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for place, panel in enumerate(grid.flat):
        if place >= len(methods):
            panel.set_visible(False)
            continue
        method = methods[place]
        mine = [line for line in report["lines"] if line["method"] == method]
        powers, look = report["exponents"][method], look_of(method.split()[0])
        for name, colour, mark in (("authors", FAINT, "."), ("ours", look.colour, look.marker)):
            points = [(line["tokens"], line[f"{name}_ms"][0]) for line in mine if line[f"{name}_ms"]]
            if points:
                label = f"{name}, N^{powers[name]:.2f}" if name in powers else name
                line = "--" if name == "authors" else "-"
                panel.plot(*zip(*points, strict=True), marker=mark, linestyle=line, markersize=4, linewidth=1, color=colour, label=label)
        panel.set(xscale="log", yscale="log", title=method, xlabel="visual tokens N")
        plain_ticks(panel, [line["tokens"] for line in mine])
        panel.grid(visible=True, which="major", linewidth=0.3, color="0.85")
        panel.legend(frameon=False, fontsize=6)
    for row in grid:
        row[0].set_ylabel("ms of CPU time" if report["cpu_time"] else "ms")
    return figure
