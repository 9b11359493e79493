"""Results as people edit and merge them: whatever stands in the files, reading succeeds or says what is wrong in which file."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from runs import KEPT, make_run

from biaskit.errors import BiaskitError
from biaskit.validation.report.analyse import Settings
from biaskit.validation.report.contents import Report
from biaskit.validation.report.write import write_report
from biaskit.validation.results.directory import Directory
from biaskit.validation.results.manifest import merge
from biaskit.validation.results.read import read_run
from biaskit.validation.selections.read import read_selections

ODD = [
    None, True, False, 0, -1, 1, 2**63, 10**30, 0.5, -0.5, 1e300, 1e-300, "", "x", "\x00", "\ud800", "none", "fastv+prior/r0.25", "é\u202e",
    [], {}, [1], [[1, 2]], [[0, 144], [2, "x"]], {"a": 1}, {"strength": "x"}, {"": None}, [None], "1e400", [[[[[[[[]]]]]]]], {"name": 1},
    {"\ud800": 1},
]  # fmt: skip
RAW = [
    b"NaN", b"Infinity", b"-Infinity", b"1e999", b"1" + b"0" * 400, b"1" + b"0" * 5000, b"[" * 100_000 + b"]" * 100_000, b"\xff\xfe",
    b'"\\ud800"', b"{" + b'"a":{' * 2000 + b"}" * 2001, b"\x00", b'"\\u0000"', b"[" * 1_000_000,
]  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    kept = {name: KEPT[name] for name in ("random", "fastv", "fastv+prior")}
    folder = make_run(tmp_path_factory.mktemp("whole") / "run", n=8, kept=kept, retentions=(0.25,), tasks=("scenes-where",))
    folder.with_name("manifest").write_bytes((folder / "run.json").read_bytes())
    return folder, (folder / "results.jsonl").read_bytes(), (folder / "run.json").read_bytes()


def everything(folder):
    """All that is done with a folder: reading, going on in it, its numbers as text and JSON, its selections."""
    done = []
    for step in (
        lambda: read_selections(folder).points(),
        lambda: resumed(folder),
        lambda: written(folder),
    ):
        try:
            step()
            done.append(True)
        except BiaskitError as error:
            (error.message + error.hint).encode("utf-8")
            assert not any(ord(letter) < 32 and letter not in "\n\t" for letter in error.message), error.message
            done.append(False)
    return done


def resumed(folder):
    directory = Directory(folder)
    manifest = directory.read_manifest()
    assert manifest is not None
    new = json.loads(folder.with_name("manifest").read_bytes())  # what the run was before it was edited
    merge(manifest, new, str(folder))
    directory.load({"scenes-where": "iou50"})


def written(folder):
    report = Report.of(read_run(folder), Settings(100, 100))
    json.dumps(report.summary(), allow_nan=False).encode("utf-8")
    report.manifest_text().encode("utf-8")
    report.conclusion.text.encode("utf-8")
    assert "\x00" not in report.conclusion.text


def places(value, at=()):
    """Every place in a JSON value."""
    yield at
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(inner, (*at, key))


def changed(value, at, new):
    if not at:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[at[0]] = changed(copy[at[0]], at[1:], new)
    return copy


def without(value, at):
    copy = dict(value) if isinstance(value, dict) else list(value)
    if len(at) == 1:
        del copy[at[0]]
    else:
        copy[at[0]] = without(copy[at[0]], at[1:])
    return copy


@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_any_edit_is_read_or_refused(whole, data):
    folder, lines, manifest = whole
    chance = data.draw(st.randoms(use_true_random=False))
    file = data.draw(st.sampled_from(["results.jsonl", "run.json"]))
    texts = lines.splitlines(keepends=True) if file == "results.jsonl" else [manifest]
    number = chance.randrange(len(texts))
    record = json.loads(texts[number])
    at = chance.choice([place for place in places(record) if place] + [()])
    how = data.draw(st.sampled_from(["value", "value", "value", "raw", "gone", "bytes", "cut", "twice"]))
    if how == "value":
        new = json.dumps(changed(record, at, chance.choice(ODD))).encode()
    elif how == "raw":
        new = json.dumps(changed(record, at, "@@")).encode().replace(b'"@@"', chance.choice(RAW))
    elif how == "gone" and at:
        new = json.dumps(without(record, at)).encode()
    elif how == "bytes":
        new = bytearray(texts[number])
        for _ in range(chance.randrange(1, 6)):
            new[chance.randrange(len(new))] = chance.randrange(256)
        new = bytes(new)
    elif how == "cut":
        new = texts[number][: chance.randrange(len(texts[number]))]
    else:
        new = texts[number] * 2
    texts[number] = new if new.endswith(b"\n") else new + b"\n"
    try:
        (folder / file).write_bytes(b"".join(texts))
        everything(folder)
    finally:
        (folder / "results.jsonl").write_bytes(lines)
        (folder / "run.json").write_bytes(manifest)


@pytest.mark.parametrize("raw", RAW, ids=range(len(RAW)))
@pytest.mark.parametrize("field", ["id", "scores", "tags", "layer_tokens", "n_text", "parameters"])
def test_raw_values_in_a_line_name_file_and_line(whole, tmp_path, raw, field):
    _, lines, manifest = whole
    first, *others = lines.splitlines(keepends=True)
    record = json.loads(first) | {field: "@@"}
    (tmp_path / "results.jsonl").write_bytes(json.dumps(record).encode().replace(b'"@@"', raw) + b"\n" + b"".join(others))
    (tmp_path / "run.json").write_bytes(manifest)
    if field == "id" and raw in (b'"\\ud800"', b'"\\u0000"'):  # names of files may be so; they are never printed as they are
        read_run(tmp_path)
        return
    with pytest.raises(BiaskitError, match=r"results\.jsonl, line 1 is not an answer of a validation: (no JSON|field)"):
        read_run(tmp_path)


def test_a_folder_as_it_was_is_read_in_full(whole):
    assert everything(whole[0]) == [False, True, True], "it was not analysed; all else works"


def test_what_is_no_file_is_refused(whole, tmp_path):
    (tmp_path / "results.jsonl").write_bytes(whole[1])
    (tmp_path / "run.json").mkdir()
    with pytest.raises(BiaskitError, match=r"run\.json is broken: it is not a regular file"):
        read_run(tmp_path)


def test_numbers_that_json_does_not_have_are_null(tmp_path):
    """The unpruned model is never right: every ratio to it is without end."""
    folder = make_run(tmp_path / "run", n=20, unpruned=0.0, kept={"random": KEPT["random"]}, retentions=(0.25,), tasks=("scenes-where",))
    written = write_report(Report.of(read_run(folder), Settings(100, 100)), tmp_path / "report", ("json",))
    found = json.loads(written[0].read_text(), parse_constant=lambda word: pytest.fail(word))
    assert found["tasks"] == {"scenes-where": {"n": 20, "metric": "iou50"}}


def test_columns_are_what_the_records_say(tmp_path):
    """Cells in any order, with questions missing here and there, against the plain way: dictionaries."""
    folder = make_run(tmp_path / "run", n=40, kept={name: KEPT[name] for name in ("random", "fastv")}, tasks=("scenes-where",))
    lines = (folder / "results.jsonl").read_text().splitlines(keepends=True)
    chance = random.Random(0)
    chance.shuffle(lines)
    lines = lines[:-30]
    (folder / "results.jsonl").write_text("".join(lines))
    records = {}
    for line in lines:
        record = json.loads(line)
        records.setdefault(record["cell"], {})[record["id"]] = record
    task = read_run(folder).tasks[0]
    labels = [cell.label for cell in task.cells]
    first = records[next(iter(records))]
    assert list(task.ids) == [name for name in first if all(name in records[label] for label in labels)]
    assert task.primary.tolist() == [[records[label][name]["scores"]["iou50"] for label in labels] for name in task.ids]
    assert [task.tags[k] for k in range(len(task.ids))] == [first[name]["tags"] for name in task.ids]
    assert task.answered == {label: len(found) for label, found in records.items()}
    for label in labels:
        mine = [records[label][name] for name in task.ids]
        for name in ("mean_tokens", "cache_bytes", "n_kept", "n_visual", "n_text"):
            assert task.costs[label][name] == pytest.approx(sum(one[name] for one in mine) / len(mine))
        steps = {}
        for one in mine:
            key = (tuple((layer, float(count)) for layer, count in one["layer_tokens"]), one["n_text"])
            steps[key] = steps.get(key, 0) + 1
        assert task.layers[label] == steps
