"""The report's page: what stands first, tables that sort, and a gallery that hides no wrong answer."""

from __future__ import annotations

import io
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from browser import Browser, axe, chromium
from PIL import Image
from runs import KEPT, make_run

from biaskit.grid import overlap
from biaskit.tasks import open_task
from biaskit.validation.ask.runner import validate
from biaskit.validation.report.analyse import Settings
from biaskit.validation.report.cards import card
from biaskit.validation.report.contents import Report
from biaskit.validation.report.gallery import Answer, Example, Photo, galleries
from biaskit.validation.report.photos import with_photos
from biaskit.validation.report.write import as_html
from biaskit.validation.results.read import read_run

QUICK = Settings(resamples=200, flips=200)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run whose answers say who gave them."""
    few = {method: KEPT[method] for method in ("random", "fastv", "fastv+prior", "divprune")}
    made = make_run(tmp_path_factory.mktemp("run"), n=60, kept=few, retentions=(0.25, 0.1))
    lines = [json.loads(line) for line in (made / "results.jsonl").read_text().splitlines()]
    for line in lines:
        line |= {"answer": f"{line['cell']} says <b>{line['id']}</b>", "prompt": f"what is {line['id']}?"}
    (made / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return made


@pytest.fixture(scope="module")
def report(folder):
    return Report.of(read_run(folder), QUICK)


@pytest.fixture(scope="module")
def page(report, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "index.html"
    path.write_text(as_html(report), encoding="utf-8")
    return path


def test_the_gallery_has_every_answer_to_questions_that_divide_the_methods(folder, report):
    records = {(r["task"], r["id"], r["cell"]): r for r in map(json.loads, (folder / "results.jsonl").read_text().splitlines())}
    found = galleries(report.run, report.results)
    assert [one.task for one in found] == ["scenes-where", "scenes-presence"]
    for one in found:
        share = {"25 %": 0.25, "10 %": 0.1}[one.budget]
        labels = {label for task, _, label in records if task == one.task and label.endswith(f"/r{share:g}")}
        ids = {question for task, question, _ in records if task == one.task}
        divided = {q for q in ids if len({records[one.task, q, label]["scores"]["iou50"] for label in labels}) == 2}
        assert one.differ == len(divided) and one.n == 60
        assert len(one.examples) == 6 and {example.id for example in one.examples} <= divided
        for example in one.examples:
            assert example.answers[0].method == "none" and len(example.answers) == len(labels) + 1
            for answer in example.answers:
                mine = records[one.task, example.id, "none" if answer.method == "none" else f"{answer.method}/r{share:g}"]
                assert (answer.text, answer.right) == (mine["answer"], mine["scores"]["iou50"] == 1)
            assert {answer.right for answer in example.answers} == {True, False}
    assert [e.id for one in galleries(report.run, report.results) for e in one.examples] == [e.id for one in found for e in one.examples]


def test_the_answer_and_a_picture_stand_first(page, report):
    text = page.read_text(encoding="utf-8")
    main = text[text.index("<main>") :]
    assert report.conclusion.text.startswith(report.conclusion.sentence) and report.conclusion.sentence.endswith(".")
    places = [main.index(word) for word in ('class="sentence"', "<figure>", "<nav", "<h2", 'id="gallery"')]
    assert places == sorted(places)
    assert "&lt;b&gt;" in main and "says <b>" not in main, "answers of models are text"
    assert not re.search(r'(?:src|href)="(?!data:|#)', text) and "default-src 'none'" in text


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    program = chromium()
    if program is None:
        pytest.skip("no Chromium here: apt-get install chromium, or set BIASKIT_CHROMIUM")
    with Browser(program, tmp_path_factory.mktemp("profile")) as found:
        yield found


LOOKS = {"desktop": {}, "phone": {"width": 390, "height": 844}, "dark": {"dark": True}}


@pytest.mark.parametrize("look", LOOKS)
def test_it_opens_everywhere(browser, page, look, tmp_path):
    browser.requests.clear()
    browser.errors.clear()
    browser.open(page, **LOOKS[look])
    assert browser.errors == [] and all(address.startswith(("file:", "data:")) for address in browser.requests)
    assert browser.run("document.documentElement.scrollWidth <= innerWidth")
    top = browser.run("document.querySelector('figure').getBoundingClientRect().top")
    assert top < 900, "the picture is on the first screen"
    where = Path(os.environ.get("BIASKIT_SCREENSHOTS", tmp_path)) / f"report-{look}.png"
    browser.picture(where)
    assert (np.median(np.asarray(Image.open(where).convert("L"))[:40]) < 60) == ("dark" in look)
    if axe() is not None:
        browser.run("document.querySelectorAll('details').forEach((one) => { one.open = true; }); 0")
        assert browser.violations(axe()) == []


def test_tables_sort_by_keyboard(browser, page):
    browser.open(page)
    browser.run("document.querySelectorAll('.wide table')[0].querySelectorAll('thead button')[1].focus()")
    values = "[...document.querySelectorAll('.wide table')[0].tBodies[0].rows].map((row) => Number(row.cells[1].dataset.value))"
    for key, way in (("Enter", "descending"), ("Enter", "ascending")):
        browser.press(key)
        found = [value for value in browser.run(values) if value is not None]
        assert len(found) > 3 and found == sorted(found, reverse=way == "descending")
        assert browser.run("document.activeElement.closest('th').getAttribute('aria-sort')") == way


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """A run of the embedded model, with all that can be drawn of it."""
    folder = tmp_path_factory.mktemp("asked") / "run"
    validate("demo", "scenes-where", "none,random,fastv", 0.25, out=folder, limit=16, keep_indices=True, progress=False)
    return folder


def test_the_gallery_shows_pictures_kept_tokens_and_boxes(asked):
    """What is drawn is what the run has: the picture of the question, its true box, the answer's box, and the dropped cells."""
    report = Report.of(read_run(asked), QUICK)
    (found,) = with_photos(galleries(report.run, report.results))
    records = {(r["id"], r["cell"]): r for r in map(json.loads, (asked / "results.jsonl").read_text().splitlines())}
    task = open_task("scenes-where")
    ids = {task.identify(i): i for i in range(len(task))}
    assert found.examples and not found.without
    for example in found.examples:
        photo, place = example.photo, ids[example.id]
        small = np.asarray(Image.open(io.BytesIO(photo.jpeg)), dtype=float)
        assert np.abs(small - np.asarray(task.image(place).resize((photo.width, photo.height)))).mean() < 8
        assert len(photo.jpeg) < 30_000 and photo.region == pytest.approx((*task.region(place)[1::-1], *task.region(place)[:1:-1]))
        for answer in example.answers:
            record = records[example.id, "none" if answer.method == "none" else f"{answer.method}/r0.25"]
            assert answer.shown["cells"] == record["kept"] and answer.shown["grid"] == [12, 12]
            box = answer.shown.get("box")
            if record["scores"]["parsed"]:
                side = task.image(place).size
                assert overlap([v * s for v, s in zip(box, side * 2, strict=True)], record["truth"]) == pytest.approx(
                    record["scores"]["iou"], abs=1e-3
                )
    text = as_html(report)
    assert text.count('<svg class="photo"') == len(found.examples) and text.count('<svg class="thumb"') == 3 * len(found.examples)
    assert not re.search(r'(?:src|href)="(?!data:|#)', text) and len(text) < 900_000


def test_a_gallery_without_the_data_says_so(report):
    """The run's questions are not those of the task: no picture of another question is shown."""
    for one in with_photos(galleries(report.run, report.results)):
        assert "Without pictures" in one.without and not any(example.photo for example in one.examples)
    assert "Without pictures" in as_html(report)


def test_only_cells_that_were_dropped_are_veiled():
    photo = Photo(b"", 60, 40, None)
    answer = Answer("fastv", "x", 1.0, {"grid": [2, 3], "place": [0, 0, 1, 1], "cells": [1, 5]})
    text = card(Example("1", "a.jpg", "what?", "x", [answer], photo), "photo-1")
    assert 'd="M0.0 0.0h20.0v20.0h-20.0zM40.0 0.0h20.0v20.0h-20.0zM0.0 20.0h40.0v20.0h-40.0z"' in text
    assert 'aria-label="2 of 6 cells kept"' in text and 'class="said"' not in text


@pytest.mark.parametrize("look", LOOKS)
def test_pictures_fit_the_page(browser, asked, look, tmp_path):
    page = tmp_path / "index.html"
    page.write_text(as_html(Report.of(read_run(asked), QUICK)), encoding="utf-8")
    browser.errors.clear()
    browser.open(page, **LOOKS[look])
    assert browser.errors == [] and browser.run("document.documentElement.scrollWidth <= innerWidth")
    assert browser.run("[...document.querySelectorAll('.thumb use, .photo image')].every((one) => one.getBoundingClientRect().width > 40)")
    if axe() is not None:
        assert browser.violations(axe()) == []
