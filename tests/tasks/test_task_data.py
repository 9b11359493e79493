"""Reading what others published: RefCOCO in four layouts, POPE in three, short questions, and files that mean harm."""

from __future__ import annotations

import io
import json
import os
import pickle
import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from models import boxes, wording
from PIL import Image

from biaskit.errors import TaskError
from biaskit.tasks import Seen, open_task, plain_pickle
from biaskit.tasks.pictures import Pictures, spellings
from biaskit.tasks.plain_pickle import read_plain_pickle

SEEN = Seen((480, 640), (480, 640), boxes=boxes("qwen3_vl"))
NAMES = ["COCO_train2014_000000000007.jpg", "COCO_train2014_000000000008.jpg"]


def picture(size=(640, 480), colour=(10, 20, 30)):
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture
def release(tmp_path):
    """A release as lichengunc/refer's: two pictures, three refs, four expressions."""
    folder = tmp_path / "refcoco"
    folder.mkdir()
    (tmp_path / "images" / "mscoco" / "images" / "train2014").mkdir(parents=True)
    for k, name in enumerate(NAMES):
        (tmp_path / "images/mscoco/images/train2014" / name).write_bytes(picture(colour=(k, 0, 0)))
    instances = {
        "images": [
            {"id": 7, "file_name": NAMES[0], "height": 480, "width": 640},
            {"id": 8, "file_name": NAMES[1], "height": 480, "width": 640},
        ],
        "annotations": [
            {"id": 70, "image_id": 7, "bbox": [10, 20, 30, 40], "area": 1000.5, "category_id": 1},
            {"id": 71, "image_id": 7, "bbox": [300.5, 200, 100, 100], "area": 9000, "category_id": 2},
            {"id": 80, "image_id": 8, "bbox": [0, 240, 640, 240], "area": 100_000, "category_id": 1},
        ],
        "categories": [{"id": 1, "name": "person"}, {"id": 2, "name": "dog"}],
    }
    (folder / "instances.json").write_text(json.dumps(instances))

    def ref(number, annotation, image, split, *sentences):
        name = NAMES[image - 7].replace(".jpg", f"_{number}.jpg")
        says = [
            {"sent_id": 100 * number + k, "sent": text, "raw": text.upper(), "tokens": text.split()} for k, text in enumerate(sentences)
        ]
        return {"ref_id": number, "ann_id": annotation, "image_id": image, "split": split, "file_name": name, "category_id": 1,
                "sent_ids": [one["sent_id"] for one in says], "sentences": says}  # fmt: skip

    refs = [
        ref(1, 70, 7, "val", "left man", "man"),
        ref(2, 71, 7, "testA", "dog"),
        ref(3, 80, 8, "testAB", "everyone"),
        ref(4, 80, 8, "train", "x"),
    ]
    (folder / "refs(unc).p").write_bytes(pickle.dumps(refs, protocol=2))
    return tmp_path


def test_refs_of_the_original_release(release):
    for data in (release, release / "refcoco", release / "refcoco" / "refs(unc).p"):
        task = open_task("refcoco", data)
        assert [task[i] for i in range(len(task))] == ["refcoco/1/100", "refcoco/1/101"]
        assert task.name == "refcoco:val" and task.truth(0) == [10, 20, 40, 60] and task.image_name(0) == NAMES[0]
        assert task.tags(0) == {"size": "small", "row": "top", "ring": "edge", "category": "person"}, (
            "1000.5 of 1200 pixels: by its outline"
        )
        assert task.region(0) == pytest.approx((20 / 480, 10 / 640, 60 / 480, 40 / 640))
        assert task.prompt(1, wording("internvl")).endswith("<ref>man</ref>")
    assert open_task("refcoco", release).image(0).getpixel((0, 0))[0] <= 2
    assert task.score(0, "[[16, 42, 62, 125]]", SEEN)["iou50"] == 1


def test_splits_of_refs(release):
    """REFER's rule: refs of testAB belong to both."""
    found = {
        split: [one.text for one in open_task(f"refcoco:{split}", release).expressions] for split in ("testA", "testB", "test", "train")
    }
    assert found == {"testA": ["dog", "everyone"], "testB": ["everyone"], "test": ["dog", "everyone"], "train": ["x"]}
    with pytest.raises(TaskError, match=r"refcoco has no split 'tesA'") as caught:
        open_task("refcoco:tesA", release)
    assert "testA" in caught.value.hint
    with pytest.raises(TaskError, match="refcocog has no split 'testA'"):
        open_task("refcocog:testA", release)
    with pytest.raises(TaskError, match=r"refs\(umd\)\.p"):
        open_task("refcoco:val:split_by=umd", release / "refcoco")
    with pytest.raises(TaskError, match="does not know"):
        open_task("refcoco:val:split_by=unk", release)
    with pytest.raises(TaskError, match="does not know"):
        open_task("refcoco:val:splitby=unc", release)


def test_refs_that_do_not_fit(release):
    path = release / "refcoco" / "instances.json"
    whole = json.loads(path.read_text())
    path.write_text(json.dumps({**whole, "annotations": whole["annotations"][1:]}))
    with pytest.raises(TaskError, match="do not match: KeyError"):
        open_task("refcoco", release)
    path.write_text(json.dumps([1, 2]))
    with pytest.raises(TaskError, match=r"is not an instances\.json"):
        open_task("refcoco", release)
    path.unlink()
    with pytest.raises(TaskError, match=r"no instances\.json beside"):
        open_task("refcoco", release)


class Harm:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


HARM = {
    "runs a command": lambda mark: pickle.dumps(Harm(os.system, f"touch {mark}")),
    "evaluates": lambda mark: pickle.dumps(Harm(eval, f"open({str(mark)!r}, 'w')"), protocol=2),
    "opens a file": lambda mark: pickle.dumps([{"split": "val"}, Harm(open, str(mark), "w")], protocol=0),
    "builds a list by call": lambda mark: b"\x80\x04\x8c\x08builtins\x8c\x04list\x93)R.",
    "takes all memory": lambda mark: b"cbuiltins\nbytearray\n(I99999999999\ntR.",
    "numpy": lambda mark: pickle.dumps(np.arange(3)),
    "a class of ours": lambda mark: pickle.dumps(Seen((1, 1), (1, 1))),
    "outside": lambda mark: b"Pabc\n.",
    "dotted names": lambda mark: b"\x80\x04\x8c\x08builtins\x8c\x0fset.__class__.mro\x93.",
    "extension": lambda mark: b"\x80\x02\x82\x01.",
    "truncated": lambda mark: pickle.dumps(["a" * 100])[:-20],
    "claims a huge text": lambda mark: b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7fabc.",
    "empty": lambda mark: b"",
    "no pickle": lambda mark: b"PK\x03\x04zip",
}


@pytest.mark.parametrize("kind", HARM)
def test_hostile_pickles_are_refused(tmp_path, kind):
    mark = tmp_path / "harmed"
    path = tmp_path / "refs(unc).p"
    path.write_bytes(HARM[kind](mark))
    (tmp_path / "instances.json").write_text('{"images": [], "annotations": []}')
    with pytest.raises(TaskError, match="is refused: ") as caught:
        open_task("refcoco", path)
    assert "download it again" in caught.value.hint and not mark.exists()
    if kind == "runs a command":
        assert f"{os.system.__module__}.system" in caught.value.message, "the error says what the pickle wanted"


def test_a_few_bytes_take_no_gigabytes(tmp_path):
    """A slot far out in the memo: a table of that size must not be made. Texts cannot be longer than the file, whatever they say."""
    path = tmp_path / "refs(unc).p"
    path.write_bytes(b"]r\xff\xff\xff\x00.")
    tracemalloc.start()
    assert read_plain_pickle(path) == []
    assert tracemalloc.get_traced_memory()[1] < 1e6
    tracemalloc.stop()


def test_harm_would_be_done_without_the_guard(tmp_path):
    """Else the test above would say nothing."""
    pickle.loads(HARM["opens a file"](tmp_path / "harmed"))[1].close()
    assert (tmp_path / "harmed").exists()


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3) | st.tuples(inner, inner),
    max_leaves=8,
)


@given(plain, st.integers(0, 5))
def test_plain_pickles_are_read(tmp_path_factory, value, protocol):
    path = tmp_path_factory.getbasetemp() / "plain.p"
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    assert read_plain_pickle(path) == value


def test_pickles_of_python_2_are_read(tmp_path):
    """Byte texts of protocol 0 and 2, `u'…'`, long numbers, sets, as the published files have them."""
    path = tmp_path / "old.p"
    path.write_bytes(b"(lp0\n(dp1\nS'sent'\np2\nVcaf\\u00e9\np3\nsS'ref_id'\np4\nL12L\nsS'raw'\nS'caf\\xe9'\nsa.")
    assert read_plain_pickle(path) == [{"sent": "café", "ref_id": 12, "raw": "café"}]
    path.write_bytes(b"\x80\x02c__builtin__\nset\n]q\x00(K\x01K\x02e\x85R.")
    assert read_plain_pickle(path) == {1, 2}


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_json_lines_of_qwen_and_internvl(tmp_path):
    rows = [
        {"image": f"data/coco/train2014/{NAMES[0]}", "sent": "left man", "bbox": [10.5, 20, 40, 60], "height": 480, "width": 640},
        {"image": f"data/coco/train2014/{NAMES[0]}", "sent": "dog", "bbox": [300, 200, 400, 300], "height": 480, "width": 640},
    ]
    lines(tmp_path / "refcoco+_testA.jsonl", rows)
    (tmp_path / "train2014").mkdir()
    (tmp_path / "train2014" / NAMES[0]).write_bytes(picture())
    task = open_task("refcoco+:testA", tmp_path)
    assert task.truth(0) == [10.5, 20, 40, 60] and task[0] == "refcoco+/0" and task.image(1).size == (640, 480)
    assert task.tags(1) == {"size": "large", "row": "middle", "ring": "centre"}
    with pytest.raises(TaskError, match=r"row 0 .* is not a box within the image, read as xywh") as caught:
        open_task("refcoco:testA:box=xywh", lines(tmp_path / "a.jsonl", [{**rows[1], "bbox": [500, 200, 600, 300]}]))
    assert caught.value.hint == "if it is written otherwise, add box=xyxy"


HUB = [
    {"question_id": "123", "question": "Write a caption.", "answer": ["left man", "man"], "bbox": [10.0, 20.0, 30.0, 40.0], "iscrowd": 0,
     "segmentation": [1.0, 2.0], "file_name": "COCO_train2014_000000000007_0.jpg"},
    {"question_id": "124", "question": "Write a caption.", "answer": ["dog"], "bbox": [300.5, 200.0, 100.0, 100.0], "iscrowd": 0,
     "segmentation": [1.0, 2.0], "file_name": "COCO_train2014_000000000008_1.jpg"},
]  # fmt: skip


def check_hub(task):
    assert [task[i] for i in range(3)] == ["refcoco/123/0", "refcoco/123/1", "refcoco/124"] and len(task) == 3
    assert task.truth(0) == task.truth(1) == [10, 20, 40, 60] and task.truth(2) == [300.5, 200, 400.5, 300]
    assert [one.text for one in task.expressions] == ["left man", "man", "dog"]
    assert [task.image(i).size for i in range(3)] == [(640, 480), (640, 480), (500, 480)]
    assert task.tags(0)["row"] == "top" and task.tags(2)["ring"] == "centre"


def test_rows_of_the_hub_as_json_lines(tmp_path):
    lines(tmp_path / "val.jsonl", HUB)
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "000000000007.jpg").write_bytes(picture())
    (tmp_path / "pictures" / "COCO_train2014_000000000008.jpg").write_bytes(picture((500, 480)))
    check_hub(open_task("refcoco", tmp_path / "val.jsonl", images=tmp_path / "pictures"))


def test_rows_of_the_hub_as_parquet(tmp_path):
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed: parquet cannot be read")
    from pyarrow import parquet

    (tmp_path / "data").mkdir()
    held = [{"bytes": picture(), "path": "a.jpg"}, {"bytes": picture((500, 480)), "path": "b.jpg"}]
    for k, (row, image) in enumerate(zip(HUB, held, strict=True)):
        parquet.write_table(pa.Table.from_pylist([{**row, "image": image}]), tmp_path / "data" / f"val-0000{k}-of-00002.parquet")
    check_hub(open_task("refcoco:val", tmp_path))
    one = tmp_path / "one.parquet"
    parquet.write_table(
        pa.Table.from_pylist([{**row, "image": image} for row, image in zip(HUB, held, strict=True)]), one, row_group_size=1
    )
    check_hub(open_task("refcoco:val", one))
    one.write_bytes(b"PAR1 not really")
    with pytest.raises(TaskError, match="cannot read the parquet file"):
        open_task("refcoco:val", one)


def test_parquet_without_pyarrow(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "val-00000-of-00001.parquet").write_bytes(b"PAR1")
    with pytest.raises(TaskError, match="pyarrow is not installed") as caught:
        open_task("refcoco", tmp_path)
    assert caught.value.hint == "pip install pyarrow, or export the rows as JSON lines"


def test_coco_style_annotations(tmp_path):
    found = {
        "images": [{"id": 7, "file_name": NAMES[0], "height": 480, "width": 640}],
        "annotations": [
            {
                "id": 1,
                "image_id": 7,
                "bbox": [10, 20, 30, 40],
                "area": 5000,
                "sentences": [{"sent": "left man"}, {"sent": "man"}],
                "category_id": 1,
            },
            {"id": 2, "image_id": 7, "bbox": [10, 20, 30, 40], "expression": "hidden", "split": "test"},
        ],
        "categories": [{"id": 1, "name": "person"}],
    }
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(found))
    task = open_task("refcocog", path)
    assert [one.text for one in task.expressions] == ["left man", "man"] and task.truth(1) == [10, 20, 40, 60]
    assert task.tags(0) == {"size": "medium", "row": "top", "ring": "edge", "category": "person"}
    assert [one.text for one in open_task("refcocog:test", path).expressions] == ["left man", "man", "hidden"], (
        "rows without a split are of all"
    )
    found["annotations"][0]["image_id"] = 99
    path.write_text(json.dumps(found))
    with pytest.raises(TaskError, match="an annotation lacks 99"):
        open_task("refcocog", path)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"image": "a.jpg", "bbox": [0, 0, 1, 1]}, "has no expression"),
        ({"image": "a.jpg", "sent": "x"}, "has no box of four numbers: None"),
        ({"image": "a.jpg", "sent": "x", "bbox": [0, 0, 1]}, "has no box of four numbers"),
        ({"sent": "x", "bbox": [0, 0, 1, 1]}, "has no file_name"),
        ({"image": "a.jpg", "sent": "x", "bbox": [5, 5, 5, 9]}, "is not a box"),
        ({"image": "a.jpg", "sent": "x", "bbox": ["a", 0, 1, 1]}, "no box of four"),
        ({"image": "a.jpg", "sent": "x", "bbox": [0, 0, "nan", 1]}, "is not a box"),
        ({"image": "a.jpg", "sent": " ", "bbox": [0, 0, 1, 1]}, "no expression"),
    ],
)  # fmt: skip
def test_rows_that_lack_something(tmp_path, row, says):
    with pytest.raises(TaskError, match=f"row 0 of .*{says}"):
        open_task("refcoco", lines(tmp_path / "a.jsonl", [row]))


def test_files_that_are_something_else(tmp_path):
    path = tmp_path / "a.jsonl"
    for text, says in (
        ("", "is empty"),
        ('{"a": 1}\n{oops', "line 2 is not JSON"),
        ("[1, 2]", "list of objects"),
        ("[" * 100_000, "nested too deeply|not JSON"),
    ):
        path.write_text(text)
        with pytest.raises(TaskError, match=says):
            open_task("vqa", path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TaskError, match="cannot read"):
        open_task("vqa", path)
    with pytest.raises(TaskError, match="does not exist"):
        open_task("vqa", tmp_path / "nothing.jsonl")
    with pytest.raises(TaskError, match="does not exist; looked for refs"):
        open_task("refcoco", tmp_path / "nothing")
    with pytest.raises(TaskError, match="has no refs"):
        open_task("refcoco", tmp_path)


def test_names_of_pictures(tmp_path):
    assert spellings("x/COCO_val2014_000000000009_12.jpg")[1:] == [
        "COCO_val2014_000000000009_12.jpg", "COCO_val2014_000000000009.jpg", "000000000009.jpg",
    ]  # fmt: skip
    (tmp_path / "here.jpg").write_bytes(picture())
    pictures = Pictures(None, [tmp_path])
    assert pictures.open("some/folder/here.jpg").size == (640, 480)
    for name in ("../here.jpg", f"{tmp_path}/here.jpg", "a/../../here.jpg"):
        with pytest.raises(TaskError, match="is not a relative path"):
            pictures.open(name)
    with pytest.raises(TaskError, match=r"image 'gone\.jpg' is not there"):
        pictures.open("gone.jpg")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 not much")
    with pytest.raises(TaskError, match=r"broken\.jpg"):
        pictures.open("broken.jpg")
    with pytest.raises(TaskError, match="do not exist"):
        Pictures(tmp_path / "nowhere")


def test_pictures_in_a_zip(tmp_path):
    import zipfile

    with zipfile.ZipFile(tmp_path / "train2014.zip", "w") as archive:
        archive.writestr(f"train2014/{NAMES[0]}", picture())
    assert Pictures(tmp_path / "train2014.zip").open("000000000007.jpg").size == (640, 480)


POPE = [
    {"question_id": 1, "image": "COCO_val2014_000000000001.jpg", "text": "Is there a dog in the image?", "label": "yes"},
    {"question_id": 2, "image": "COCO_val2014_000000000001.jpg", "text": "Is there a car in the image?", "label": "no"},
]


def test_pope_as_published(tmp_path):
    (tmp_path / "val2014").mkdir()
    (tmp_path / "val2014" / "COCO_val2014_000000000001.jpg").write_bytes(picture())
    for subset in ("random", "popular", "adversarial"):
        lines(tmp_path / f"coco_pope_{subset}.json", POPE)
    task = open_task("pope", tmp_path)
    assert len(task) == 6 and task.name == "pope" and task[0] == "pope/random/1" and task[-1] == "pope/adversarial/2"
    assert [task.truth(i) for i in range(2)] == ["yes", "no"] and task.image(5).size == (640, 480)
    assert task.prompt(0, wording("llava")) == "Is there a dog in the image?\nAnswer the question using a single word or phrase."
    popular = open_task("pope:popular", tmp_path)
    assert len(popular) == 2 and popular.tags(1) == {"subset": "popular", "truth": "no"} and popular.name == "pope:popular"
    assert popular.score(0, "Yes", SEEN) == {"correct": 1, "said_yes": 1, "is_yes": 1, "parsed": 1}
    with pytest.raises(TaskError, match="no subset 'populer'") as caught:
        open_task("pope:populer", tmp_path)
    assert "popular" in caught.value.hint
    with pytest.raises(TaskError, match="the label is 'perhaps'"):
        open_task("pope", lines(tmp_path / "x.jsonl", [{**POPE[0], "label": "perhaps"}]))
    with pytest.raises(TaskError, match="has no random questions"):
        open_task("pope:random", tmp_path / "coco_pope_popular.json")


def test_pope_of_the_hub(tmp_path):
    rows = [
        {
            "id": "0",
            "question_id": "1",
            "question": "Is there a dog?",
            "answer": "yes",
            "image_source": "COCO_val2014_000000000001",
            "category": "popular",
        },
        {
            "id": "1",
            "question_id": "1",
            "question": "Is there a cat?",
            "answer": "no",
            "image_source": "COCO_val2014_000000000001",
            "category": "popular",
        },
    ]
    (tmp_path / "COCO_val2014_000000000001.jpg").write_bytes(picture())
    task = open_task("pope:popular", lines(tmp_path / "pope.jsonl", rows))
    assert len({task[0], task[1]}) == 2 and task.image(0).size == (640, 480)


def test_short_questions(tmp_path):
    rows = [
        {
            "question_id": 5,
            "image": "a.jpg",
            "question": "What?",
            "answers": [{"answer": "red"}] * 3 + [{"answer": "blue"}] * 7,
            "question_type": "other",
        },
        {"id": 6, "image": "a.jpg", "text": "How much?", "answer": "50%", "metric": "relaxed"},
        {"image": "a.jpg", "question": "Who?", "answer": ["me", "you"], "prompt": "Who is it?"},
    ]
    (tmp_path / "a.jpg").write_bytes(picture())
    path = lines(tmp_path / "q.jsonl", rows)
    task = open_task("vqa", path)
    assert [task[i] for i in range(3)] == ["vqa/5", "vqa/6", "vqa/2"]
    assert [task.tags(i) for i in range(3)] == [{"metric": "vqa", "category": "other"}, {"metric": "relaxed"}, {"metric": "exact"}]
    assert task.score(0, "Red.", SEEN) == pytest.approx({"correct": 0.9, "exact": 1, "vqa": 0.9, "anls": 0.75, "relaxed": 1, "parsed": 1})
    assert task.score(1, "0.51\n\nbecause", SEEN)["correct"] == 1 and task.score(1, "", SEEN)["parsed"] == 0
    assert task.prompt(0, wording("internvl")) == "What? Answer the question using a single word or phrase."
    assert task.prompt(0, wording("qwen2_vl")) == "What?\nAnswer the question using a single word or phrase."
    assert task.prompt(2, wording("llava")) == "Who is it?" and task.image(2).size == (640, 480) and task.truth(1) == ["50%"]
    strict = open_task("vqa:anls", path)
    assert strict.name == "vqa:anls" and strict.score(0, "reda", SEEN)["correct"] == 0.75
    with pytest.raises(TaskError, match="vqa has no metric 'bleu'"):
        open_task("vqa:bleu", path)
    with pytest.raises(TaskError, match="unknown metric 'bleu'"):
        open_task("vqa", lines(tmp_path / "r.jsonl", [{**rows[1], "metric": "bleu"}]))
    with pytest.raises(TaskError, match="has no answer"):
        open_task("vqa", lines(tmp_path / "r.jsonl", [{"image": "a.jpg", "question": "?"}]))


@pytest.mark.parametrize("name", ["refcoco", "refcoco+", "refcocog", "pope", "vqa"])
def test_data_is_asked_for(name):
    with pytest.raises(TaskError, match=r"needs data") as caught:
        open_task(name)
    assert caught.value.hint.startswith("give --data")


def test_the_real_sample(coco_sample):
    task = open_task("refcoco", coco_sample)
    assert len(task) == 13 and len({task[i] for i in range(13)}) == 13
    for i in range(13):
        rows, cols = task.image(i).height, task.image(i).width
        top, left, bottom, right = task.region(i)
        assert 0 <= top < bottom <= 1 and 0 <= left < right <= 1
        assert task.truth(i) == pytest.approx([left * cols, top * rows, right * cols, bottom * rows])
        assert set(task.tags(i)) == {"size", "row", "ring", "set"}
    pope = open_task("pope", coco_sample)
    assert len(pope) == 18 and all(pope.image(i).size == (375, 500) for i in range(18))
    assert [len(open_task(f"pope:{subset}", coco_sample)) for subset in ("random", "popular", "adversarial")] == [6, 6, 6]


BOMBS = {
    "a byte array of 8 GB": b"\x80\x05\x96" + (8 << 30).to_bytes(8, "little") + b"abc.",
    "lists that double": b"]q\x00." + b"",
    "tuples as a key": b"}K\x01K\x01\x86" + b"2\x86" * 60 + b"Ns.",
    "a set of tuples": b"cbuiltins\nset\n(](K\x01K\x01\x86" + b"2\x86" * 60 + b"etR.",
    "a frozen set of tuples": b"\x80\x04(K\x01K\x01\x86" + b"2\x86" * 60 + b"\x91.",
    "a list in itself": b"]q\x00h\x00a.",
    "more steps than refs have": b"]" + b"N0" * 60_000 + b".",
    "more containers than refs have": b"](" + b"}" * 41_000 + b"e.",
}
BOMBS["lists that double"] = (
    b"]q\x00K\x01a0"
    + b"".join(
        b"]r" + (k + 1).to_bytes(4, "little") + b"(j" + k.to_bytes(4, "little") + b"j" + k.to_bytes(4, "little") + b"e0" for k in range(60)
    ).replace(b"j\0\0\0\0", b"h\0")
    + b"j\x3c\0\0\0."
)


@pytest.mark.parametrize("kind", BOMBS)
def test_pickles_that_would_never_end_or_fill_the_memory(tmp_path, monkeypatch, kind):
    """The bounds on steps and containers are a hundredth of what they are, so that the test is short."""
    for bound in ("MAX_STEPS", "MAX_HELD"):
        monkeypatch.setattr(plain_pickle, bound, getattr(plain_pickle, bound) // 100)
    path = tmp_path / "refs(unc).p"
    path.write_bytes(BOMBS[kind])
    tracemalloc.start()
    try:
        with pytest.raises(TaskError, match="is refused: ") as caught:
            read_plain_pickle(path)
        assert len(caught.value.message) < 1000 and tracemalloc.get_traced_memory()[1] < 2e7
    finally:
        tracemalloc.stop()


def test_many_refs_cannot_share_many_sentences(tmp_path, release):
    """10⁴ refs times 10⁴ sentences from a few bytes each would be 10⁸ questions."""
    sentences = [{"sent": "x", "sent_id": k} for k in range(1000)]
    refs = [{"ref_id": k, "ann_id": 70, "image_id": 7, "split": "val", "sentences": sentences} for k in range(1000)]
    path = release / "refcoco" / "refs(unc).p"
    path.write_bytes(pickle.dumps(refs))
    assert path.stat().st_size < 100_000
    with pytest.raises(TaskError, match="is refused: containers that it shares make far more"):
        open_task("refcoco", release)


def test_pickles_may_share_a_little(tmp_path):
    shared = ["a", {"b": 1}]
    (tmp_path / "x.p").write_bytes(pickle.dumps([shared, shared, {"again": shared}]))
    assert read_plain_pickle(tmp_path / "x.p") == [shared, shared, {"again": shared}]
