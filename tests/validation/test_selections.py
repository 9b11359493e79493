"""Selections of a results directory: means and intervals, the frontier, overlaps question by question, and the figures."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from biaskit.cli.validate_analyse import analyse
from biaskit.errors import BiaskitError
from biaskit.select.kept import jaccard_by_chance
from biaskit.validation.selections import overlap_matrix, pareto, read_selections
from biaskit.validation.selections.figures import frontier


def record(task, number, method, retention, kept, **selection):
    return {
        "task": task, "id": f"{task}/{number}", "cell": f"{method}/r{retention:.6g}", "retention": retention, "kept": kept,
        "n_visual": 20, "selection": selection, "scores": {"correct": 1.0},
    }  # fmt: skip


@pytest.fixture
def run(tmp_path):
    rng = np.random.default_rng(0)
    lines = []
    for task in ("where", "presence"):
        for number in range(6):
            lines.append({**record(task, number, "none", 1.0, list(range(20))), "selection": {}, "cell": "none"})
            for retention, n in ((0.5, 10), (0.1, 2)):
                for method in ("random", "fastv", "fastv@k=3+prior"):
                    kept = sorted(rng.permutation(20)[:n].tolist()) if method == "random" else list(range(n))
                    measures = {"importance": rng.random(), "hopkins": rng.random(), "spacing": 1.0}
                    lines.append(record(task, number, method, retention, kept, **measures))
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "run.json").write_text(json.dumps({"analysed": {"hopkins_reference": "sphere"}}))
    return tmp_path, lines


def test_points_are_means_over_questions(run):
    folder, lines = run
    found = read_selections(folder)
    assert found.tasks == ["where", "presence"]
    assert found.reference == "sphere"
    points = {(p.task, p.cell): p for task in found.tasks for p in found.points(task)}
    assert set(points) == {(t, f"{m}/r{r}") for t in found.tasks for m in ("random", "fastv", "fastv@k=3+prior") for r in ("0.5", "0.1")}
    mine = [line["selection"]["hopkins"] for line in lines if line["task"] == "where" and line["cell"] == "fastv/r0.1"]
    point = points["where", "fastv/r0.1"]
    assert (point.n, point.method, point.retention) == (6, "fastv", 0.1)
    assert point.means["hopkins"] == pytest.approx(np.mean(mine))
    assert point.half_widths["hopkins"] == pytest.approx(1.96 * np.std(mine, ddof=1) / math.sqrt(6))
    assert found.points()[0].n == 12


def test_overlaps_pair_the_same_questions(run):
    folder, lines = run
    found = read_selections(folder)
    assert found.retentions == [0.5, 0.1]
    names, values, chance = found.overlaps(0.1, "where")
    assert names == ["random", "fastv", "fastv@k=3+prior"]
    kept = {(line["id"], line["cell"]): set(line["kept"]) for line in lines}
    pairs = [(kept[f"where/{i}", "random/r0.1"], kept[f"where/{i}", "fastv/r0.1"]) for i in range(6)]
    assert values[0, 1] == values[1, 0] == pytest.approx(np.mean([len(a & b) / len(a | b) for a, b in pairs]))
    assert values[1, 2] == 1
    assert chance == pytest.approx(jaccard_by_chance(20, 2, 2))
    assert found.overlaps(0.1, "where", "coefficient")[1][0, 1] == pytest.approx(np.mean([len(a & b) / 2 for a, b in pairs]))
    with pytest.raises(BiaskitError, match="overlap measure 'dice'"):
        found.overlaps(0.1, None, "dice")


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=9))
def test_the_frontier_is_what_nobody_beats(points):
    best = frontier(points)

    def beaten(i):
        return any(q[0] <= points[i][0] and q[1] >= points[i][1] and q != points[i] for q in points)

    assert {points[i] for i in best} == {p for i, p in enumerate(points) if not beaten(i)}
    assert [points[i] for i in best] == sorted(points[i] for i in best)


def test_figures_show_every_cell(run, tmp_path):
    folder, _ = run
    figure = pareto(folder, tmp_path / "pareto.png")
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["where (n = 6)", "presence (n = 6)"]
    assert any("Hopkins reference: sphere" in text.get_text() for text in figure.texts)
    assert (tmp_path / "pareto.png").read_bytes() == (pareto(folder, tmp_path / "again.png"), (tmp_path / "again.png").read_bytes())[1]
    figure = overlap_matrix(folder, tmp_path / "overlap.png", task="where")
    assert len([axes for axes in figure.axes if axes.images]) >= 2
    with pytest.raises(BiaskitError, match=r"overlap\.png exists"):
        overlap_matrix(folder, tmp_path / "overlap.png")
    with pytest.raises(BiaskitError, match="no task 'pope'") as caught:
        pareto(folder, task="pope")
    assert "where or presence" in caught.value.hint
    with pytest.raises(BiaskitError, match="has no importance_debiased"):
        pareto(folder, importance="importance_debiased")


def test_a_run_without_analysis_says_how_to_get_one(tmp_path):
    with pytest.raises(BiaskitError, match=r"there is no .*results\.jsonl") as caught:
        read_selections(tmp_path)
    assert "--analyse" in caught.value.hint
    (tmp_path / "results.jsonl").write_text('{"task": "a", "id": "0", "cell": "none", "retention": 1.0, "scores": {}}\n')
    with pytest.raises(BiaskitError, match="has no measures of selections"):
        read_selections(tmp_path)


def test_a_killed_runs_last_line_is_left_out(run):
    folder, lines = run
    path = folder / "results.jsonl"
    path.write_text(path.read_text() + '{"task": "wh')
    assert len(read_selections(folder).records) == len([line for line in lines if line["selection"]])
    path.write_text("{oh\n" + path.read_text())
    with pytest.raises(BiaskitError, match=r"line 1 is not an answer.*no JSON"):
        read_selections(folder)


def test_the_command(run, tmp_path):
    folder, _ = run
    app = typer.Typer()
    app.command()(analyse)
    result = CliRunner().invoke(app, [str(folder), "--out", str(tmp_path / "figures"), "--json"])
    assert result.exit_code == 0, result.output
    data = json.loads(result.stdout)
    assert len(data["points"]) == 12
    assert [row["retention"] for row in data["overlaps"]] == [0.5, 0.1]
    assert data["files"] == [str(tmp_path / "figures" / name) for name in ("pareto.png", "overlap.png")]
    table = CliRunner().invoke(app, [str(folder), "--out", str(tmp_path / "figures"), "--force"]).stdout
    assert "Hopkins reference: sphere" in table
    assert "fastv@k=3+prior/r0.5" in table
    assert isinstance(CliRunner().invoke(app, [str(folder), "--out", str(tmp_path / "figures")]).exception, BiaskitError)
