"""The contents of a report: warnings, the answer, sections of tables and figures, and the same numbers as tidy rows."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from biaskit.files import file_part
from biaskit.text import finite
from biaskit.validation.report import tables as build
from biaskit.validation.report import tidy
from biaskit.validation.report.analyse import Settings, TaskResults, analyse
from biaskit.validation.report.average import Average, averages
from biaskit.validation.report.contrasts import Conclusion, conclude
from biaskit.validation.report.gate import Against, against_papers, gate_state, incomparable, warnings
from biaskit.validation.report.recognise import Recognised, recognise
from biaskit.validation.report.tables import Table
from biaskit.validation.results.doubtful import doubts
from biaskit.validation.results.read import Run

if TYPE_CHECKING:  # matplotlib takes seconds to load: it is imported where figures are drawn
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Drawing:
    """A figure, its file name without suffix, and its caption."""

    key: str
    figure: Figure
    caption: str

    @cached_property
    def svg(self) -> bytes:
        """The figure as SVG; the same figure gives the same bytes."""
        from biaskit.figures.style import METADATA, house_style

        out = io.BytesIO()
        with house_style():
            self.figure.savefig(out, format="svg", metadata=METADATA[".svg"])
        return out.getvalue()


@dataclass(frozen=True)
class Chapter:
    """A part of the report: tables, figures, and further tables that are collapsed on the page."""

    key: str
    title: str
    drawings: Sequence[Drawing]
    tables: Sequence[Table]
    more: Sequence[Table] = ()


@dataclass(frozen=True, eq=False)
class Report:
    """All numbers of a run."""

    run: Run
    settings: Settings
    results: Sequence[TaskResults]
    average: Sequence[Average]
    conclusion: Conclusion
    papers: Sequence[Against]
    recognised: Recognised

    @staticmethod
    def of(run: Run, settings: Settings | None = None, published_as: str | None = None) -> Report:
        """Compute everything about a run.

        Args:
            published_as: the hub id of the papers' checkpoint that the model is a copy of, or `none`; by default as the run recorded it, or
                from its name, architecture and sizes.

        Raises:
            BiaskitError: the published tables do not have that model.
        """
        chosen = settings or Settings()
        model = recognise(run.manifest, published_as)
        results = [analyse(run, task, chosen) for task in run.tasks]
        return Report(run, chosen, results, averages(results), conclude(results), against_papers(model, results), model)

    @property
    def warnings(self) -> list[str]:
        """Warnings for the top: unpruned scores off the published ones, cells with unreadable answers, then incomplete data."""
        doubtful = [line for result in self.results for line in doubts(result.run.task, result.scored)]
        incomplete = (f"{result.run.task}: {note}" for result in self.results for note in result.run.notes)
        return [*warnings(self.papers), *doubtful, *self.run.notes, *incomplete]

    @property
    def gate(self) -> str:
        """A sentence on whether the unpruned model was compared with published scores, and if not, why."""
        return gate_state(self.recognised, self.papers, self.results)

    @property
    def title(self) -> str:
        """The report's heading."""
        return f"Does debiasing help? {self.run.model or self.run.folder.resolve().name}"

    @property
    def subtitle(self) -> str:
        """Model, numerics and questions in one line."""
        manifest = self.run.manifest
        words = [
            str(manifest.get("model", {}).get("revision", "")),
            *(str(manifest.get(k, "")) for k in ("dtype", "attention", "device")),
        ]
        tasks = ", ".join(f"{result.run.task} (n = {result.n})" for result in self.results)
        return " · ".join(word for word in (*words, tasks) if word)

    @cached_property
    def chapters(self) -> list[Chapter]:
        """All tables and figures, in order."""
        first, *tasks, papers = self.tables
        found = [replace(first, drawings=self._curves())]
        found += [replace(chapter, drawings=self._maps(result)) for chapter, result in zip(tasks, self.results, strict=True)]
        settings = self._settings()
        return [*found, *([Chapter("settings", "Ablation and settings", settings, [])] if settings else []), papers]

    @cached_property
    def tables(self) -> list[Chapter]:
        """The chapters that have tables, without drawing their figures."""
        paper = build.paper_table(self.papers)
        notes = [*incomparable(self.recognised, self.results), self.gate]
        shown = Table("paper-against-measured", "Paper against measured", ["task"], [], notes)
        if paper is not None:
            shown = replace(paper, notes=[*paper.notes, *notes])
        papers = Chapter("papers", "Paper against measured", [], [shown])
        return [self._overview(), *(self._task(result) for result in self.results), papers]

    def _overview(self) -> Chapter:
        answer = build.contrast_table(self.conclusion, self.settings.alpha)
        average = build.average_table(self.average)
        return Chapter("overview", "Overview", [], [table for table in (average, answer) if table is not None])

    def _curves(self) -> list[Drawing]:
        from biaskit.validation.report.curves import average_curves, draw_curves, task_curves
        from biaskit.validation.report.figure_style import looks

        panels = [task_curves(result) for result in self.results]
        if len(self.results) > 1 and self.average:
            panels.append(average_curves(self.average, self.results))
        if not any(panel.lines for panel in panels):
            return []
        caption = (
            "Score against visual tokens kept; dotted black: unpruned. With a prior: thick, filled, a dash pattern for each prior; the "
            "same method without: thin, open and dotted."
        )
        look = looks([cell for result in self.results for cell in result.run.cells])
        return [Drawing("score-by-retention", draw_curves(panels, look, self.results[0].settings.level), caption)]

    def _task(self, result: TaskResults) -> Chapter:
        first = [build.score_table(result), build.cost_table(result), *(build.matrix(result, budget) for budget in result.budgets)]
        more = [build.sweep_table(result), build.secondary_table(result), *build.part_tables(result)]
        shown, folded = ([table for table in group if table is not None] for group in (first, more))
        return Chapter(file_part(result.run.task), result.run.task, [], shown, folded)

    def _maps(self, result: TaskResults) -> list[Drawing]:
        from biaskit.validation.report.part_maps import draw_parts

        drawings = []
        for kind in dict.fromkeys(part.kind for part in result.parts):
            figure = draw_parts(result, kind)
            if figure is not None:
                caption = (
                    f"{result.run.task}: scores by {kind} in points; colours: difference from the unpruned model on the same questions."
                )
                drawings.append(Drawing(f"{file_part(result.run.task)}-by-{file_part(kind)}", figure, caption))
        return drawings

    def _settings(self) -> list[Drawing]:
        from biaskit.validation.report.bars import draw_ablation
        from biaskit.validation.report.sweeps import SYMBOLS, draw_sweep, find_sweeps

        drawings = []
        ablation = draw_ablation(self.results)
        sweeps = [sweep for result in self.results for sweep in find_sweeps(result)]
        if ablation is not None:
            caption = "Ablation: attention alone, debiased importance (DI), structural diversity (SD), both."
            drawings.append(Drawing("ablation", ablation, caption))
        for method, parameter in dict.fromkeys((sweep.method, sweep.parameter) for sweep in sweeps):
            group = [sweep for sweep in sweeps if (sweep.method, sweep.parameter) == (method, parameter)]
            caption = f"{method}: score against {SYMBOLS.get(parameter, parameter)}, all other settings held."
            drawings.append(Drawing(f"sweep-{file_part(method)}-{file_part(parameter)}", draw_sweep(group), caption))
        return drawings

    def numbers(self) -> dict[str, list[dict[str, Any]]]:
        """All numbers as rows: file name → rows."""
        return {
            "scores": tidy.scores(self.results),
            "comparisons": tidy.comparisons(self.results),
            "breakdown": tidy.parts(self.results),
            "average": tidy.averages(self.average),
            "conclusion": tidy.contrasts(self.conclusion, self.settings.alpha),
            "papers": tidy.papers(self.papers),
        }

    def summary(self) -> dict[str, Any]:
        """The report as JSON values."""
        found: dict[str, Any] = {
            "run": str(self.run.folder),
            "model": self.run.model,
            "tasks": {result.run.task: {"n": result.n, "metric": result.measure.name} for result in self.results},
            "warnings": self.warnings,
            "gate": self.gate,
            "conclusion": self.conclusion.text,
            "verdicts": self.conclusion.verdicts,
            "settings": {**vars(self.settings)},
            **self.numbers(),
        }
        return {key: finite(value) for key, value in found.items()}

    def manifest_text(self) -> str:
        """The run's manifest, for the end of the page."""
        return json.dumps(self.run.manifest, indent=1, ensure_ascii=False, sort_keys=True)
