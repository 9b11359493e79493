"""Question files as people have them."""

from __future__ import annotations

import base64
import io
import json
import os

import pytest
from PIL import Image

from biaskit.errors import TaskError
from biaskit.images import regular
from biaskit.tasks import open_task


def picture(size=(64, 48)):
    buffer = io.BytesIO()
    Image.effect_noise(size, 90).convert("RGB").save(buffer, "JPEG")
    return buffer.getvalue()


def lines(path, *rows):
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    return path


ASKED = {"question": "a?", "answer": "x", "image": "a.jpg"}


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\x1c", "\x0c"])
def test_lines_end_at_line_feeds_alone(tmp_path, mark):
    text = f"What{mark}is it?"
    first = json.dumps({**ASKED, "question": text}, ensure_ascii=False).replace("\\f", mark).replace("\\u001c", "\\u001c")
    if mark in "\x1c\x0c":
        first = json.dumps({**ASKED, "question": text})
    path = tmp_path / "q.jsonl"
    path.write_bytes(f"{first}\r\n{json.dumps(ASKED)}\n".encode())
    task = open_task("vqa", path)
    assert len(task) == 2
    assert task.asked[0].text == text


def test_pope_as_llava_lays_it_out(tmp_path):
    (tmp_path / "coco").mkdir()
    asked = {"question_id": 1, "image": "a.jpg", "text": "Is there a dog?"}
    for subset in ("random", "popular", "adversarial"):
        lines(tmp_path / "coco" / f"coco_pope_{subset}.json", {**asked, "label": "yes"})
    lines(tmp_path / "llava_pope_test.jsonl", {**asked, "category": "adversarial"})
    for folder in (tmp_path, tmp_path / "coco"):
        assert [open_task("pope:adversarial", folder).truth(0), len(open_task("pope", folder))] == ["yes", 3]
    for path in (tmp_path / "coco").iterdir():
        path.unlink()
    with pytest.raises(TaskError, match=r"row 0 of .* has no label") as caught:
        open_task("pope", tmp_path)
    assert "coco/coco_pope_*.json" in caught.value.hint


@pytest.mark.parametrize("key", ["data", "questions", "annotations"])
def test_lists_in_an_object(tmp_path, key):
    (tmp_path / "a.jpg").write_bytes(picture())
    path = tmp_path / "q.json"
    path.write_text(json.dumps({"dataset_type": "val", key: [{"question": "a?", "answers": ["x"] * 10, "image_id": "a"}]}))
    task = open_task("vqa", path)
    assert (len(task), task.image_name(0), task.image(0).size) == (1, "a", (64, 48))


@pytest.mark.parametrize("image", [["a.jpg"], {"path": "a.jpg"}, {"bytes": None, "path": "a.jpg"}, "sub\\a.jpg"])
def test_names_of_pictures_in_other_forms(tmp_path, image):
    (tmp_path / "a.jpg").write_bytes(picture())
    assert open_task("vqa", lines(tmp_path / "q.jsonl", {**ASKED, "image": image})).image(0).size == (64, 48)
    pope = {"text": "Is there?", "label": "yes", "image": image, "subset": "random"}
    assert open_task("pope", lines(tmp_path / "p.jsonl", pope)).image(0).size == (64, 48)
    ref = {"sent": "x", "bbox": [1, 2, 9, 9], "image": image}
    assert open_task("refcoco", lines(tmp_path / "r.jsonl", ref)).image(0).size == (64, 48)


@pytest.mark.parametrize(
    ("row", "file"),
    [
        ({"image": "a.jpg"}, "a.jpg"),
        ({"image": "a.jpg", "file_name": "b.jpg"}, "a.jpg"),
        ({"image": "a.jpg", "file_name": "b.jpg", "local_file": "c.jpg"}, "c.jpg"),
        ({"image": {"bytes": None, "path": "a.jpg"}, "file_name": "b.jpg"}, "b.jpg"),
        ({"image": {"bytes": None, "path": "a.jpg"}, "file_name": " "}, "a.jpg"),
        ({"image": {"bytes": None, "path": "a.jpg"}, "file_name": "b.jpg", "local_file": "c.jpg"}, "c.jpg"),
        ({"image": [{"bytes": None, "path": "a.jpg"}], "file_name": "b.jpg", "local_file": ""}, "a.jpg"),
    ],
)
def test_every_task_finds_the_file_by_the_same_columns(tmp_path, row, file):
    (tmp_path / file).write_bytes(picture())
    questions = {
        "vqa": {"question": "a?", "answer": "x"},
        "pope": {"text": "Is there?", "label": "yes", "subset": "random"},
        "refcoco": {"sent": "x", "bbox": [1, 2, 9, 9]},
    }
    for name, asked in questions.items():
        task = open_task(name, lines(tmp_path / f"{name}.jsonl", {**asked, **row}))
        assert (task.image_name(0), task.image(0).size) == (file, (64, 48))


@pytest.mark.parametrize(
    ("name", "row"), [("pope", {"text": "Is there?", "label": "yes"}), ("refcoco", {"sent": "x", "bbox": [1, 2, 9, 9]})]
)
def test_a_row_without_a_picture_is_refused(tmp_path, name, row):
    with pytest.raises(TaskError, match=r"row 0 of .* has no .*file_name or .*image"):
        open_task(name, lines(tmp_path / "q.jsonl", row))


def test_ids_are_unique_across_files_too(tmp_path):
    row = {"question_id": 1, "image": "a.jpg", "text": "Is there a dog?", "label": "yes", "category": "popular"}
    for subset in ("random", "popular", "adversarial"):
        lines(tmp_path / f"coco_pope_{subset}.json", row)
    task = open_task("pope", tmp_path)
    assert [task[i] for i in range(3)] == ["pope/popular/1#0", "pope/popular/1#1", "pope/popular/1#2"]


@pytest.mark.parametrize("found", [{"images": [], "annotations": []}, {"images": [{}]}, [{}], {"questions": [{}]}])
def test_a_question_file_is_read_once(tmp_path, found, monkeypatch):
    (tmp_path / "a.json").write_text(json.dumps(found))
    read, paths = regular.read_regular, []
    monkeypatch.setattr(regular, "read_regular", lambda path, limit: paths.append(path) or read(path, limit))
    with pytest.raises(TaskError, match=r"has no|does not hold"):
        open_task("refcoco", tmp_path / "a.json")
    assert paths == [tmp_path / "a.json"]


def test_several_pictures_are_refused(tmp_path):
    with pytest.raises(TaskError, match=r"row 0 of .* has 2 images"):
        open_task("vqa", lines(tmp_path / "q.jsonl", {**ASKED, "image": ["a.jpg", "b.jpg"]}))


@pytest.mark.parametrize("head", ["", "data:image/jpeg;base64,"])
def test_pictures_in_base64(tmp_path, head):
    text = head + base64.b64encode(picture()).decode()
    task = open_task("vqa", lines(tmp_path / "q.jsonl", {**ASKED, "image": text}, {**ASKED, "image": [text]}))
    assert task.image(0).tobytes() == task.image(1).tobytes()
    assert task.image_name(0) == task.image_name(1)
    assert task.image_name(0).startswith("base64-") and len(task.image_name(0)) < 30
    ref = {"sent": "x", "bbox": [1, 2, 9, 9], "image": text}
    assert open_task("refcoco", lines(tmp_path / "r.jsonl", ref)).image(0).size == (64, 48)
    broken = "iVBORw0KGgo" + base64.b64encode(os.urandom(9000)).decode()
    with pytest.raises(TaskError):
        open_task("vqa", lines(tmp_path / "q.jsonl", {**ASKED, "image": broken})).image(0)


@pytest.mark.parametrize(
    "name", ["a" * 300, "图" * 100, "a/" + "b" * 999 + ".jpg", "a\x7f", "\x00"], ids=["long", "Chinese", "long part", "DEL", "NUL"]
)
def test_texts_that_no_file_is_called_by(tmp_path, name):
    with pytest.raises(TaskError, match=r"is not there|is not a relative path") as caught:
        open_task("vqa", lines(tmp_path / "q.jsonl", {**ASKED, "image": name})).image(0)
    assert len(caught.value.message) < 1000
    for task in ("vqa", "pope", "refcoco"):
        with pytest.raises(TaskError) as caught:
            open_task(task, tmp_path / name)
        assert len(caught.value.message) < 2000
    with pytest.raises(TaskError, match="do not exist"):
        open_task("vqa", lines(tmp_path / "q.jsonl", ASKED), images=tmp_path / name)


def test_half_a_surrogate_pair_is_refused_by_name(tmp_path):
    (tmp_path / "q.jsonl").write_text(json.dumps({**ASKED, "question": "a\ud800?"}) + "\n" + json.dumps(ASKED))
    with pytest.raises(TaskError, match=r"half a surrogate pair, '\\ud800'"):
        open_task("vqa", tmp_path / "q.jsonl")
    (tmp_path / "q.jsonl").write_text(json.dumps({**ASKED, "question": "a\U0001f600?"}))
    assert open_task("vqa", tmp_path / "q.jsonl").asked[0].text == "a\U0001f600?"


@pytest.mark.parametrize("form", ["text", "struct", "list", "bytes", "list of structs"])
def test_pictures_of_parquet_files(tmp_path, form):
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed: parquet cannot be read")
    from pyarrow import parquet

    both = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    column = {
        "text": lambda: pa.array(["a.jpg"]),
        "struct": lambda: pa.array([{"bytes": None, "path": "a.jpg"}], both),
        "list": lambda: pa.array([["a.jpg"]]),
        "bytes": lambda: pa.array([picture()], pa.binary()),
        "list of structs": lambda: pa.array([[{"bytes": picture(), "path": "b.jpg"}]], pa.list_(both)),
    }[form]()
    (tmp_path / "a.jpg").write_bytes(picture())
    parquet.write_table(pa.table({"question": ["a?"], "answer": ["x"], "image": column}), tmp_path / "q.parquet")
    assert open_task("vqa", tmp_path / "q.parquet").image(0).size == (64, 48)
