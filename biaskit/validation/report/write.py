"""Write a report: markdown, CSV, LaTeX, figures, and one self-contained page of HTML."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import get_args
from urllib.parse import quote

from biaskit.errors import BiaskitError
from biaskit.files import write_file
from biaskit.text import for_json, for_markdown
from biaskit.validation.report.contents import Report
from biaskit.validation.report.gallery import galleries
from biaskit.validation.report.html import Code, Opening, Picture, Section, page
from biaskit.validation.report.photos import with_photos
from biaskit.validation.report.text_formats import comma_separated, latex, markdown
from biaskit.validation.results.directory import MANIFEST
from biaskit.validation.statistics.resampling import Kind

FORMATS = ("html", "md", "csv", "tex", "png", "svg", "json")


def write_report(
    report: Report,
    out: Path,
    formats: Sequence[str] = FORMATS,
    *,
    data: Path | None = None,
    images: Path | None = None,
    force: bool = False,
) -> list[Path]:
    """Write a report into a folder; the same run gives the same bytes.

    Files: index.html (self-contained), report.md, csv/*.csv, tex/*.tex, figures/*.png and *.svg, report.json.

    Args:
        report: what to write. out: the folder. formats: some of `FORMATS`. force: overwrite.
        data, images: where the questions and images of tasks are that read files, for the pictures of the page's gallery.

    Returns:
        The files, in the order of writing.

    Raises:
        BiaskitError: an unknown format, or a folder with a report, without `force`.
    """
    check_report_out(out, formats, force)
    files: dict[Path, bytes] = {}
    if "csv" in formats:
        files |= {out / "csv" / f"{name}.csv": comma_separated(rows).encode() for name, rows in report.numbers().items() if rows}
    if "tex" in formats:
        files |= {out / "tex" / f"{table.key}.tex": latex(table).encode() for c in report.tables for table in (*c.tables, *c.more)}
    if "json" in formats:
        files[out / "report.json"] = (for_json(report.summary(), indent=1) + "\n").encode()
    if "md" in formats:
        files[out / "report.md"] = as_markdown(report, linked="png" in formats).encode()
    if "html" in formats:
        files[out / "index.html"] = as_html(report, data, images).encode()
    drawings = {}
    if {"png", "svg"} & set(formats):  # figures are drawn only if they are wanted
        drawings = {out / "figures" / drawing.key: drawing for chapter in report.chapters for drawing in chapter.drawings}
    if "svg" in formats:
        files |= {path.with_name(f"{path.name}.svg"): drawing.svg for path, drawing in drawings.items()}
    for path, content in files.items():
        write_file(path, content)
    written = list(files)
    if "png" in formats:
        from biaskit.figures.style import house_style, write_figure

        for path, drawing in drawings.items():
            with house_style():
                write_figure(drawing.figure, path.with_name(f"{path.name}.png"))
            written.append(path.with_name(f"{path.name}.png"))
    return written


def check_report_out(out: Path, formats: Sequence[str], force: bool) -> None:
    """Check formats and folder before any work."""
    for name in formats:
        if name not in FORMATS:
            raise BiaskitError(f"there is no format {name!r}", f"choose among {', '.join(FORMATS)}")
    if not formats:
        raise BiaskitError("no format is left to write", f"choose among {', '.join(FORMATS)}")
    if out.exists() and not out.is_dir():
        raise BiaskitError(f"{out} is a file", "give a folder")
    if out.is_dir() and any(out.iterdir()) and not force:
        raise BiaskitError(f"{out} is not empty", "choose another folder with --out, or overwrite the report with --force")


def check_interval(kind: str) -> Kind:
    """Return a kind of interval, after checking its name."""
    for known in get_args(Kind):
        if kind == known:
            return kind  # type: ignore[return-value]
    raise BiaskitError(f"there is no interval {kind!r}", f"choose {' or '.join(get_args(Kind))}")


def as_markdown(report: Report, linked: bool = True) -> str:
    """Return the whole report as markdown, with links to the figures if `linked`."""
    lines = [f"# {for_markdown(report.title)}", "", for_markdown(report.subtitle), ""]
    lines += [f"> **Warning.** {for_markdown(warning)}\n" for warning in report.warnings]
    lines += [for_markdown(report.conclusion.text), ""]
    for chapter in report.chapters if linked else report.tables:
        lines += [f"## {for_markdown(chapter.title)}", ""]
        if linked:
            lines += [f"![{for_markdown(drawing.caption)}](figures/{quote(drawing.key)}.png)\n" for drawing in chapter.drawings]
        lines += [markdown(table) for table in (*chapter.tables, *chapter.more)]
    return "\n".join(lines)


def as_html(report: Report, data: Path | None = None, images: Path | None = None) -> str:
    """Return the whole report as one page: the answer with a picture, then all tables and figures, then questions where methods differ."""
    sections, first = [], None
    for chapter in report.chapters:
        pictures = [Picture(drawing.svg, drawing.caption) for drawing in chapter.drawings]
        if first is None and pictures:
            first = pictures.pop(0)
        sections.append(Section(chapter.key, chapter.title, [*pictures, *chapter.tables], chapter.more, "Break-downs and other scores"))
    examples = with_photos(galleries(report.run, report.results), data, images)
    if examples:
        sections.append(Section("gallery", "Questions where methods differ", examples))
    if report.run.manifest:
        sections.append(
            Section("run", "How it was measured", [_how(report)], [Code(report.manifest_text())], f"The run's manifest ({MANIFEST})")
        )
    said = report.conclusion
    opening = Opening(said.sentence, said.text.removeprefix(said.sentence).strip(), first)
    return page(report.title, report.subtitle, report.warnings, opening, sections)


def _how(report: Report) -> str:
    words = "; ".join(map(str, report.run.manifest.get("commands", []))) or "not recorded"
    seed = report.settings.seed
    return (
        f"Commands: {words}. Intervals and permutations are drawn with seed {seed}: the same results give the same report, byte for byte."
    )
