"""Reports of made-up runs whose truth is known."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math

import numpy as np
import pytest
from runs import KEPT, make_run

from biaskit.errors import BiaskitError
from biaskit.validation.report.analyse import Settings, analyse, ordered
from biaskit.validation.report.average import averages, draws_of_tasks, mean_over_tasks
from biaskit.validation.report.bars import ablation
from biaskit.validation.report.contents import Report
from biaskit.validation.report.contrasts import _standings, conclude
from biaskit.validation.report.costs import costs
from biaskit.validation.report.curves import Curves, draw_curves, task_curves
from biaskit.validation.report.figure_style import looks, looks_of
from biaskit.validation.report.sweeps import find_sweeps
from biaskit.validation.report.tables import cost_table
from biaskit.validation.report.write import write_report
from biaskit.validation.results.cells import Cell, budgets, methods, plain_of, role, swept_methods
from biaskit.validation.results.read import read_run
from biaskit.validation.statistics.resampling import Estimate
from biaskit.validation.statistics.significance import holm, mcnemar

QUICK = Settings(resamples=400, flips=400)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("run"), n=150, sweeps=True)


@pytest.fixture(scope="module")
def run(folder):
    return read_run(folder)


@pytest.fixture(scope="module")
def results(run):
    return [analyse(run, task, QUICK) for task in run.tasks]


def lines(folder):
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


def test_scores_are_those_of_the_file(folder, run, results):
    records = lines(folder)
    for cell, score in zip(run.tasks[0].cells, results[0].scores, strict=True):
        own = [r["scores"]["iou50"] for r in records if r["task"] == "scenes-where" and r["cell"] == cell.label]
        assert score.value == pytest.approx(np.mean(own))
        assert score.low <= score.value <= score.high
    assert [task.task for task in run.tasks] == ["scenes-where", "scenes-presence"]
    assert results[0].n == 150 and run.model == "demo"


def test_ratio_and_difference_against_counting(folder, results):
    records = [r for r in lines(folder) if r["task"] == "scenes-where"]
    by = {
        label: {r["id"]: r["scores"]["iou50"] for r in records if r["cell"] == label}
        for label in ("none", "fastv/r0.1", "fastv+prior/r0.1")
    }
    found = results[0].compared("fastv+prior", "fastv", "10 %")
    ids = by["none"]
    differences = [by["fastv+prior/r0.1"][i] - by["fastv/r0.1"][i] for i in ids]
    assert found.difference.value == pytest.approx(np.mean(differences))
    assert found.test == "McNemar, exact"
    assert found.p == pytest.approx(mcnemar(differences.count(1), differences.count(-1)))
    assert found.corrected >= found.p and found.wins() == 1
    other = results[0].compared("fastv", "fastv+prior", "10 %")
    assert (other.difference.value, other.difference.low) == (-found.difference.value, -found.difference.high) and other.wins() == -1
    ratio = results[0].ratios[results[0].at("fastv", "10 %")]
    assert ratio.value == pytest.approx(sum(by["fastv/r0.1"].values()) / sum(by["none"].values()))
    # the interval of a paired difference is narrower than that of unpaired ones
    assert found.difference.high - found.difference.low < 2 * 1.96 * math.sqrt(2 * 0.25 / 150)


def test_main_tables_have_the_methods_and_sweeps_have_the_rest(run):
    cells = run.tasks[0].cells
    assert methods(cells) == ["none", *KEPT]
    assert budgets(cells) == ["50 %", "25 %", "10 %"]
    assert len(swept_methods(cells)) == 8 and "d2pruner@strength=0" not in swept_methods(cells)


def test_parts_know_where_a_method_fails(results):
    loss = {
        (part.value, cell.method): part.lost[index].value
        for part in results[0].parts
        if part.kind == "row"
        for index, cell in enumerate(results[0].run.cells)
        if cell.budget_name == "10 %"
    }
    assert loss["top", "fastv"] < loss["middle", "fastv"] < loss["bottom", "fastv"] < 0
    assert loss["top", "fastv+prior"] > loss["top", "fastv"] + 0.2
    assert [part.value for part in results[0].parts if part.kind == "row"] == ["top", "middle", "bottom"]
    assert sum(part.n for part in results[0].parts if part.kind == "row") == 150


def test_average_is_the_mean_of_ratios(results):
    found = {(one.method, one.budget): one.relative for one in averages(results)}
    cells = [result.at("fastv", "25 %") for result in results]
    wanted = np.mean([result.ratios[cell].value for result, cell in zip(results, cells, strict=True)])
    assert found["fastv", "25 %"].value == pytest.approx(wanted)
    assert found["fastv", "25 %"].low < wanted < found["fastv", "25 %"].high
    single = results[0].ratios[cells[0]]
    width = found["fastv", "25 %"].high - found["fastv", "25 %"].low
    assert 0.6 < width / ((single.high - single.low) / math.sqrt(2)) < 1.5  # two independent tasks: √2 narrower
    assert found["none", "25 %"].value == found["none", "25 %"].low == 1


def test_tasks_on_the_same_images_are_resampled_together(results):
    """The same answers twice say no more than once; on other images they would say √2 times as much."""
    task = results[0].run
    again = dataclasses.replace(task, task="again")
    apart = dataclasses.replace(again, images=[f"other/{name}" for name in task.images])
    cell = results[0].at("fastv", "25 %")

    def width(second):
        two = [results[0], dataclasses.replace(results[0], run=second)]
        draws = draws_of_tasks(two)
        found = mean_over_tasks([(one, one.measure.share(cell, task.unpruned)) for one in two], draws)
        return found.high - found.low

    single = results[0].measure.ratio(results[0].resampled, cell, task.unpruned, "percentile")
    assert width(again) == pytest.approx(single.high - single.low, rel=0.1)
    assert width(apart) == pytest.approx((single.high - single.low) / math.sqrt(2), rel=0.15)


def test_the_conclusion_finds_what_was_put_in(results):
    found = conclude(results)
    assert set(found.verdicts.values()) == {"helps"} and len(found.verdicts) == 4
    assert len(found.contrasts) == 4 * 3 * 2
    blind = [c for c in found.contrasts if "no attention" in c.question and c.found.budget == "10 %"]
    assert {c.found.b for c in blind} == {"divprune"}
    assert "In this run the prior helps FastV; the prior helps D2Pruner" in found.text
    assert "for top" in found.text and "150 questions of scenes-where" in found.text


def test_no_effect_is_called_what_it_is(tmp_path):
    same = {method: {0.25: (0.8, 0.8, 0.8)} for method in ("random", "fastv", "fastv+prior")}
    run = read_run(make_run(tmp_path, n=150, kept=same, retentions=(0.25,), tasks=("scenes-where",)))
    found = conclude([analyse(run, run.tasks[0], QUICK)])
    assert set(found.verdicts.values()) == {"cannot tell"}
    assert "whether the prior helps FastV cannot be told; debiased FastV cannot be told from random tokens" in found.text


def test_nothing_at_all_changes(tmp_path):
    """A prior that changes not one answer: that is known for sure, and is not the same as not knowing."""
    folder = make_run(tmp_path, n=40, kept={"fastv": KEPT["fastv"]}, tasks=("scenes-where",))
    whole = (folder / "results.jsonl").read_text().splitlines(keepends=True)
    twins = [line.replace("fastv/r", "fastv+prior/r").replace('"prior": null', '"prior": "ab"') for line in whole]
    with (folder / "results.jsonl").open("a") as out:
        out.writelines(line for line in twins if "fastv+prior" in line)
    run = read_run(folder)
    found = conclude([analyse(run, run.tasks[0], QUICK)])
    assert list(found.verdicts.values()) == ["makes no difference"]
    assert "the prior changes not one score of FastV" in found.text and "none (not one score differs) at 50 %" in found.text


def test_every_prior_is_asked_about(tmp_path):
    folder = make_run(tmp_path, n=150, kept={name: KEPT[name] for name in ("fastv", "fastv+prior", "random")}, tasks=("scenes-where",))
    lines = (folder / "results.jsonl").read_text().splitlines(keepends=True)
    with (folder / "results.jsonl").open("a") as out:  # another prior, which changes nothing
        out.writelines(
            line.replace("fastv/r", "fastv+idle/r").replace('"prior": null', '"prior": "cd"') for line in lines if "fastv/r" in line
        )
    run = read_run(folder)
    found = conclude([analyse(run, run.tasks[0], QUICK)])
    assert found.verdicts["FastV with the prior against FastV without it"] == "helps"
    assert found.verdicts["FastV with the idle prior against FastV without it"] == "makes no difference"
    assert "Debiased FastV (idle prior) against random tokens" in found.verdicts
    assert "the idle prior changes not one score of FastV" in found.text


def test_harm_is_called_harm(tmp_path):
    worse = {"fastv": {0.25: (0.9,) * 3}, "fastv+prior": {0.25: (0.5,) * 3}}
    run = read_run(make_run(tmp_path, n=150, kept=worse, retentions=(0.25,), tasks=("scenes-where",)))
    found = conclude([analyse(run, run.tasks[0], QUICK)])
    assert list(found.verdicts.values()) == ["hurts"] and "the prior hurts FastV" in found.text and "−" in found.text


def test_a_method_that_nobody_here_knows_is_paired_too(tmp_path):
    """A plug-in and its debiased twin, at 50 against 90 %, alone, beside others, and with settings of its own."""
    theirs = {"theirs": {0.25: (0.5,) * 3}, "theirs+prior": {0.25: (0.9,) * 3}}
    run = read_run(make_run(tmp_path / "alone", n=200, unpruned=1.0, kept=theirs, retentions=(0.25,), tasks=("scenes-where",)))
    found = conclude([analyse(run, run.tasks[0], QUICK)])
    assert found.verdicts == {"Their method with the prior against Their method without it": "helps"}
    assert found.contrasts[0].found.difference.value == pytest.approx(0.4, abs=0.02)
    assert "In this run the prior helps Their method." in found.text
    assert list(ablation(analyse(run, run.tasks[0], QUICK))) == ["theirs", "theirs, debiased"]

    beside = {**{name: KEPT[name] for name in ("random", "fastv", "fastv+prior")}, **theirs}
    run = read_run(make_run(tmp_path / "beside", n=200, kept=beside, retentions=(0.25,), tasks=("scenes-where",)))
    assert set(conclude([analyse(run, run.tasks[0], QUICK)]).verdicts) == {
        "FastV with the prior against FastV without it",
        "Their method with the prior against Their method without it",
        "Debiased Their method against random tokens",
    }

    deep = {f"theirs@depth=3{suffix}": theirs[f"theirs{suffix}"] for suffix in ("", "+prior")}
    run = read_run(make_run(tmp_path / "deep", n=200, kept=deep, retentions=(0.25,), tasks=("scenes-where",)))
    assert conclude([analyse(run, run.tasks[0], QUICK)]).verdicts == {
        "Their method (depth = 3) with the prior against Their method (depth = 3) without it": "helps"
    }


def level(share):
    return {0.25: (share,) * 3}


RIVALS = {
    "random": level(0.6), "fastv": level(0.5), "fastv+prior": level(0.75), "fastv@debias=null": level(0.5),
    "fastv@rows=question": level(0.7), "fastv@debias=null@mode=p_log@rows=question": level(0.98),
    "theirs": level(0.5), "theirs+prior": level(0.9),
}  # fmt: skip


def test_every_debiasing_is_asked_about_and_held_against_every_other(tmp_path):
    """Priors, the null row and other rows, of a method known here and of one that is not: each with and without, each pair."""
    run = read_run(make_run(tmp_path, n=300, unpruned=1.0, kept=RIVALS, retentions=(0.25,), tasks=("scenes-where",)))
    result = analyse(run, run.tasks[0], QUICK)
    assert list(result.methods) == ["none", *RIVALS]  # debiasings are methods, not settings that were swept
    found = conclude([result])
    null, best = "FastV with the null row", "FastV (rows = question) with the null row, p·log(p/q)"
    assert found.verdicts == {
        "FastV with the prior against FastV without it": "helps",
        f"{null} against FastV without it": "cannot tell",
        f"{best} against FastV (rows = question) without it": "helps",
        "Their method with the prior against Their method without it": "helps",
        "FastV (rows = question) against FastV": "helps",
        f"{null} against FastV with the prior": "hurts",
        f"{best} against FastV with the prior": "helps",
        f"{best} against {null}": "helps",
        "Debiased Their method against random tokens": "helps",
    }
    pairs = {c.question: (c.found.a, c.found.b) for c in found.contrasts}
    assert pairs[f"{best} against FastV (rows = question) without it"] == (
        "fastv@debias=null@mode=p_log@rows=question",
        "fastv@rows=question",
    )
    assert [c.found.corrected for c in found.contrasts] == pytest.approx(holm([c.found.p for c in found.contrasts]))
    assert f"Debiasings against each other: {null} is worse than FastV with the prior; {best} is better than" in found.text
    assert "p is corrected (Holm) over the 9 comparisons" in found.text


def test_of_many_debiasings_the_best_is_named(tmp_path):
    """Six of them, 15 pairs: one is better than all others; the table has the pairs."""
    null = ("", "@mode=p_log", "@rows=question", "@mode=p_log@rows=question")
    kept = {"fastv": level(0.5), "fastv+prior": level(0.5), "fastv@debias=recency@slope=0.002": level(0.5)}
    kept |= {f"fastv@debias=null{rest}": level(0.85 if rest == "@rows=question" else 0.5) for rest in null}
    run = read_run(make_run(tmp_path, n=200, unpruned=1.0, kept=kept, retentions=(0.25,), tasks=("scenes-where",)))
    found = conclude([analyse(run, run.tasks[0], QUICK)])
    (sentence,) = (part for part in found.text.split(". ") if part.startswith("Debiasings against each other"))
    words = (
        "15 pairs, all in the table: of 6 of FastV, FastV (rows = question) with the null row comes out best: better than 5, worse than 0"
    )
    assert sentence == f"Debiasings against each other, {words}"
    assert sum(contrast.kind == "rival" for contrast in found.contrasts) == 15


def test_standings():
    names = [f"FastV with the {letter} prior" for letter in "abcde"]
    pairs = {f"{a} against {b}": "cannot tell" for a, b in itertools.combinations(names, 2)}
    assert _standings(pairs) == ["of 5 of FastV, none is settled as better than another"]
    pairs |= {f"{names[0]} against {names[3]}": "helps", f"{names[1]} against {names[3]}": "helps"}
    (clause,) = _standings(pairs)
    assert clause.startswith(
        f"of 5 of FastV, {names[0]} and {names[1]} come out best: better than 1, worse than 0; with 3 it goes both ways"
    )
    other = {"D2Pruner with the null row against D2Pruner (rows = question) with the null row": "hurts"}
    assert _standings({**pairs, **other})[1] == (
        "of 2 of D2Pruner, D2Pruner (rows = question) with the null row comes out best: better than 1, worse than 0"
    )


def test_other_rows_stand_in_where_there_are_no_others(tmp_path):
    kept = {name: RIVALS[name] for name in ("fastv", "fastv@debias=null@mode=p_log@rows=question")}
    run = read_run(make_run(tmp_path, n=200, unpruned=1.0, kept=kept, retentions=(0.25,), tasks=("scenes-where",)))
    found = conclude([analyse(run, run.tasks[0], QUICK)])
    assert list(found.verdicts) == ["FastV (rows = question) with the null row, p·log(p/q) against FastV without it"]
    assert "In this run the null row, p·log(p/q) helps FastV (rows = question)." in found.text


def test_every_format_has_the_rivals(tmp_path):
    kept = {name: RIVALS[name] for name in ("fastv", "fastv+prior", "fastv@debias=null")}
    run = read_run(make_run(tmp_path / "run", n=60, unpruned=1.0, kept=kept, retentions=(0.25,), tasks=("scenes-where",)))
    write_report(Report.of(run, QUICK), tmp_path / "out", ("md", "html", "csv", "json", "tex"))
    words = "FastV with the null row against FastV with the prior"
    holding = {path.suffix for path in (tmp_path / "out").rglob("*") if path.is_file() and words in path.read_text(errors="ignore")}
    assert {".md", ".html", ".csv", ".json"} <= holding


def test_long_names_leave_the_panels_their_room(tmp_path):
    kept = {name: {0.25: (0.6,) * 3, 0.1: (0.5,) * 3} for name in ("fastv", "fastv@debias=null@mode=p_log@rows=question")}
    run = read_run(make_run(tmp_path, n=30, kept=kept, retentions=(0.25, 0.1), tasks=("scenes-where",)))
    result = analyse(run, run.tasks[0], QUICK)
    figure = draw_curves([task_curves(result)], looks(result.run.cells))
    (axes,), (legend,) = figure.axes, figure.legends
    assert axes.get_window_extent().width > 1.8 * figure.dpi
    assert legend.get_window_extent().x0 >= axes.get_window_extent().x1


@pytest.mark.parametrize("retentions", [(0.25, 0.1), (0.25,)])
def test_sixty_methods_have_a_line_each(retentions):
    names = [f"fastv@strength={number / 100}" for number in range(60)]
    lines = {name: [(share, Estimate(40.0 + row / 2, 35.0, 75.0)) for share in retentions] for row, name in enumerate(names)}
    figure = draw_curves([Curves("where", lines, None, "points")], looks_of(names, set()))
    page = figure.bbox
    texts = figure.legends[0].get_texts() if figure.legends else figure.axes[0].get_yticklabels()
    boxes = sorted((text.get_window_extent() for text in texts), key=lambda box: box.y0)
    assert len(boxes) == 60 + len(figure.legends)  # and the unpruned model
    assert all(page.y0 <= box.y0 and box.y1 <= page.y1 and box.x1 <= page.x1 for box in boxes)
    assert all(low.y1 <= high.y0 + 1 for low, high in itertools.pairwise(boxes))


def test_debiasings_in_words():
    assert cell("fastv+tasks", "fastv", "ab").debiasing == "the tasks prior"
    assert cell("fastv@mode=p_log+tasks", "fastv", "ab", mode="p_log").debiasing == "the tasks prior, p·log(p/q)"
    fitted, given = {"debias": "recency", "slope": None}, {"debias": "recency", "slope": 0.002}
    assert cell("fastv@debias=recency+tasks", "fastv", "ab", **fitted).debiasing == "the recency law fitted to tasks"
    assert cell("fastv@debias=recency@slope=0.002", "fastv", **given).debiasing == "the recency law of slope 0.002"
    assert cell("fastv@debias=recency@slope=0.002", "fastv", **given).debiased and not cell("fastv", "fastv", debias="prior").debiased
    assert cell("fastv@debias=null", "fastv", debias="null").debiased
    assert not cell("fastv@debias=null@strength=0", "fastv", debias="null", strength=0).debiased


def test_nothing_to_conclude_from(tmp_path):
    run = read_run(make_run(tmp_path, n=30, kept={"random": KEPT["random"]}, tasks=("scenes-where",)))
    assert "cannot be said from this run" in conclude([analyse(run, run.tasks[0], QUICK)]).text


def test_random_methods_rarely_seem_to_differ(tmp_path):
    """Nine methods that are equally good: the whole family of 36 pairs is silent in nearly all of 20 runs."""
    loud = 0
    for seed in range(20):
        random = np.random.default_rng(seed)
        records = [
            {"task": "t", "cell": f"m{m}/r0.5", "pruner": f"m{m}", "retention": 0.5, "id": str(i), "image": str(i), "prior": None,
             "parameters": {}, "scores": {"correct": float(random.random() < 0.6)}}
            for m in range(9) for i in range(60)
        ]  # fmt: skip
        folder = tmp_path / str(seed)
        folder.mkdir()
        (folder / "results.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
        run = read_run(folder)
        loud += any(c.wins() for c in analyse(run, run.tasks[0], Settings(resamples=100)).comparisons)
    assert loud <= 3


def test_questions_on_shared_images_are_taken_together(tmp_path):
    run = read_run(make_run(tmp_path, n=120, per_image=4, tasks=("scenes-where",), kept={"fastv": KEPT["fastv"], "random": KEPT["random"]}))
    found = analyse(run, run.tasks[0], QUICK)
    assert run.tasks[0].groups is not None and found.resampled.n == 30
    assert found.comparisons[0].test == "sign-flip permutation by image"


def test_graded_scores_are_flipped(tmp_path):
    run = read_run(make_run(tmp_path, n=90, graded=True, tasks=("scenes-where",), kept={"fastv": KEPT["fastv"], "random": KEPT["random"]}))
    assert analyse(run, run.tasks[0], QUICK).comparisons[0].test == "sign-flip permutation"


def test_costs_are_means_over_samples(results):
    cell = results[0].run.cells[results[0].at("fastv", "25 %")].label
    cost = results[0].costs[cell]
    assert cost.tokens == (2 * 144 + 6 * 36) / 8 and cost.kept == 36 and cost.cache_bytes == 8 * 64 * 2 * 50


def test_scores_above_0_stand_beside_the_costs(tmp_path):
    folder = make_run(tmp_path, n=40, kept={name: KEPT[name] for name in ("fastv", "fastv+prior")}, tasks=("scenes-where",))
    records = lines(folder)
    for number, record in enumerate(records):
        if record["cell"] == "fastv+prior/r0.25":
            record["positive"] = 0.5 + number % 2
    (folder / "results.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    report = Report.of(read_run(folder), QUICK)
    assert report.results[0].costs["fastv+prior/r0.25"].positive == 1.0 and report.results[0].costs["fastv/r0.25"].positive is None
    table = cost_table(report.results[0])
    column = table.head.index("25 %: scores above 0 / kept")
    assert {row[0].text: row[column].text for row in table.rows} == {"unpruned": "—", "fastv": "—", "fastv+prior": "1.00"}
    assert "least attended tokens fill up" in table.notes[-1]
    rows = {row["cell"]: row["scores_above_0_of_kept"] for row in report.numbers()["scores"]}
    assert rows["fastv+prior/r0.25"] == 1.0 and rows["fastv/r0.25"] is None


def test_flops_are_those_of_each_question_and_averaged(run):
    """Two layers of 8 see all visual tokens; d = 64, inner = 192, 4 query and 2 key heads of 16, counted by hand."""

    def layer(n):
        return n * 64 * (4 * 16 * 2 + 2 * 16 * 2) + 2 * n * n * 64 + 3 * n * 64 * 192

    found = costs(run, run.tasks[0])
    assert found["none"].flops == 8 * layer(144 + 14)
    assert found["fastv/r0.25"].flops == 2 * layer(144 + 14) + 6 * layer(36 + 14)


def test_sweeps_are_found(results):
    found = {(sweep.method, sweep.parameter): sweep for sweep in find_sweeps(results[0])}
    assert set(found) == {("d2pruner+prior", "alpha"), ("d2pruner+prior", "strength"), ("d2pruner+prior", "pivot_mode")}
    alpha, tau = found["d2pruner+prior", "alpha"], found["d2pruner+prior", "strength"]
    assert list(alpha.values) == [0.0, 0.25, 0.5, 0.75, 1.0] and alpha.default == 1.0
    assert list(tau.values) == [0.0, 0.25, 0.5, 0.75, 1.0]  # the run without the prior is τ = 0
    score = results[0].scores[results[0].at("d2pruner@strength=0", "25 %")]
    assert tau.lines["25 %"][0].value == pytest.approx(100 * score.value)
    assert not found["d2pruner+prior", "pivot_mode"].numeric


def test_ablation_steps(results):
    assert list(ablation(results[0])) == ["fastv", "fastv, debiased", "d2pruner", "d2pruner, debiased"]


def cell(method, pruner, prior=None, **parameters):
    return Cell(f"{method}/r0.5", method, pruner, 0.5, None, prior, parameters)


def test_roles():
    assert role(cell("fastv+coco", "fastv", "ab", strength=1.0)) == "fastv, debiased"
    assert role(cell("fastv", "fastv", strength=1.0)) == "fastv"
    assert role(cell("d2pruner@strength=0+prior", "d2pruner", "ab", strength=0)) == "d2pruner"
    assert role(cell("d2pruner@mode=uniform+prior", "d2pruner", "ab", mode="uniform")) == "d2pruner, uniform"
    assert role(cell("d2pruner@strength=0.5+prior", "d2pruner", "ab", strength=0.5)) is None
    assert role(cell("d2pruner@alpha=0.5+prior", "d2pruner", "ab")) is None
    assert cell("d2pruner@alpha=0.5@theta=1e-1+my-prior", "d2pruner", "ab").settings == {"alpha": "0.5", "theta": "1e-1"}


def test_a_sweep_without_the_prior_is_a_sweep_too():
    control = cell("d2pruner@strength=0", "d2pruner", strength=0, alpha=1)
    swept = cell("d2pruner@alpha=0.5@strength=0", "d2pruner", strength=0, alpha=0.5)
    assert plain_of([swept, control], swept) is control and swept_methods([swept, control]) == {swept.method}
    assert swept_methods([swept]) == set()  # nothing to vary: a method of its own
    other = cell("fastv+noise", "fastv", "cd")
    assert plain_of([cell("fastv", "fastv"), other], cell("fastv@k=3+noise", "fastv", "cd")) is other


def test_tags_in_their_natural_order():
    assert ordered({"bottom", "top", "middle"}) == ["top", "middle", "bottom"]
    assert ordered({"10-12", "9", "4-6", "many"}) == ["4-6", "9", "10-12", "many"]
    assert ordered({"b", "a"}) == ["a", "b"]


def test_a_killed_run_can_be_read(tmp_path):
    folder = make_run(tmp_path, n=60, tasks=("scenes-where",), kept={"fastv": KEPT["fastv"]}, retentions=(0.5, 0.25))
    whole = (folder / "results.jsonl").read_text().splitlines(keepends=True)
    (folder / "results.jsonl").write_text("".join(whole[:140]) + whole[140][:50])  # fastv/r0.25 has 20 of 60
    run = read_run(folder)
    assert [c.label for c in run.tasks[0].cells] == ["none", "fastv/r0.5"] and len(run.tasks[0].ids) == 60
    assert "fastv/r0.25 has 20 of 60 answers" in run.tasks[0].notes[0] and "cut off" in run.notes[0]
    (folder / "results.jsonl").write_text("".join(whole[:170]))  # 50 of 60: compare those
    run = read_run(folder)
    assert len(run.tasks[0].cells) == 3 and len(run.tasks[0].ids) == 50
    assert "Only the 50 of 60" in run.tasks[0].notes[0]
    assert any("Only the 50 of 60" in warning for warning in Report.of(run, QUICK).warnings)


def test_what_cannot_be_read_is_named(tmp_path):
    with pytest.raises(BiaskitError, match=r"has no results\.jsonl"):
        read_run(tmp_path)
    folder = make_run(tmp_path / "a", n=6, tasks=("scenes-where",), kept={})
    whole = (folder / "results.jsonl").read_text().splitlines(keepends=True)
    for text, message in (
        ("".join([whole[0], "{}\n", *whole[1:]]), r"line 2 is not an answer of a validation: it has no field 'task'"),
        ("".join([whole[0], whole[0]]), "none answers 'scenes-where/0' twice"),
        ("", "has no answers yet"),
        (whole[0].replace('"iou50": ', '"iou50": NaN, "old": '), "line 1 .* no JSON: NaN is not a JSON number"),
        (whole[0].replace('"iou50": ', '"iou50": "x", "old": '), "line 1 .* field 'scores', 'iou50' cannot be 'x'"),
        ("[1]\n", "line 1 .* it is not a JSON object"),
    ):
        (folder / "results.jsonl").write_text(text)
        with pytest.raises(BiaskitError, match=message):
            read_run(folder)
    (folder / "results.jsonl").write_text("".join(whole))
    (folder / "run.json").write_text("{")
    with pytest.raises(BiaskitError, match=r"run\.json is broken"):
        read_run(folder)
    (folder / "run.json").unlink()
    assert "no run.json" in read_run(folder).notes[0]


def yes_no(folder, tasks, n=200, accuracy=0.86, model="llava-hf/llava-1.5-7b-hf"):
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    with (folder / "results.jsonl").open("w") as out:
        for task in tasks:
            for i in range(n):
                truth, right = i % 2 == 0, random.random() < accuracy
                said = truth if right else not truth
                scores = {"correct": float(right), "said_yes": float(said), "is_yes": float(truth), "parsed": 1.0}
                record = {"task": task, "cell": "none", "pruner": "none", "retention": 1.0, "id": f"{task}/{i}", "scores": scores}
                out.write(json.dumps(record) + "\n")
    (folder / "run.json").write_text(json.dumps({"model": {"name": model}, "tasks": [{"name": t, "metric": "correct"} for t in tasks]}))
    return folder


def test_f1_against_counting(tmp_path):
    run = read_run(yes_no(tmp_path / "a", ("pope:random",)))
    found = analyse(run, run.tasks[0], QUICK)
    scores = [r["scores"] for r in lines(tmp_path / "a")]
    both = sum(s["said_yes"] * s["is_yes"] for s in scores)
    precision, recall = both / sum(s["said_yes"] for s in scores), both / sum(s["is_yes"] for s in scores)
    f1 = found.secondary["F1"][0]
    assert f1.value == pytest.approx(2 * precision * recall / (precision + recall))
    assert f1.low < f1.value < f1.high


def test_the_gate(tmp_path):
    """POPE is held against the papers by F1 and with its three subsets; off by more than a point it is the report's first warning."""
    subsets = ("pope:random", "pope:popular", "pope:adversarial")
    bad = Report.of(read_run(yes_no(tmp_path / "bad", subsets, accuracy=0.7)), QUICK)
    assert [one.passed for one in bad.papers] == [False]
    assert "D2Pruner, Table 1 prints 85.9" in bad.warnings[0] and "more than luck" in bad.warnings[0]
    good = Report.of(read_run(yes_no(tmp_path / "good", ("pope",), n=1000, accuracy=0.859)), QUICK)
    assert good.papers[0].paper == 85.9 and good.papers[0].passed is (abs(good.papers[0].off) <= 1)
    assert (not good.warnings) is good.papers[0].passed
    one = Report.of(read_run(yes_no(tmp_path / "one", subsets[:1], accuracy=0.5)), QUICK)
    assert not one.papers and not one.warnings and "this run has pope:random alone" in one.chapters[-1].tables[0].notes[0]
    assert not Report.of(read_run(yes_no(tmp_path / "demo", subsets, model="demo")), QUICK).papers


def test_methods_stand_beside_their_published_scores(tmp_path):
    folder = make_run(
        tmp_path, tasks=("refcoco:testB",), n=60, model="llava-1.5", retentions=(0.5, 0.4),
        kept={"fastv": {0.5: (0.8,) * 3, 0.4: (0.7,) * 3}, "d2pruner+prior": {0.5: (0.9,) * 3, 0.4: (0.9,) * 3}},
    )  # fmt: skip
    found = {(one.method, one.retention): one.paper for one in Report.of(read_run(folder), QUICK).papers}
    assert found == {
        ("none", 1.0): 59.88, ("fastv", 0.5): 48.32, ("fastv", 0.4): 42.73, ("d2pruner+prior", 0.5): 54.29, ("d2pruner+prior", 0.4): 52.22,
    }  # fmt: skip
