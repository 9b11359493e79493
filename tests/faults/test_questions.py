"""Question files of every layout: JSON lines, JSON, parquet, and the pickled refs."""

from __future__ import annotations

import io
import json
import pickle

import pytest
from mutations import as_json, as_lines, mutated, mutated_json
from PIL import Image
from sandbox import times

from biaskit.tasks import Seen, open_task
from biaskit.tasks.conventions import Wording

IMAGE = {"bytes": None, "path": "a.png"}
VQA = [{"question_id": k, "image": "a.png", "question": "What?", "answers": ["x"] * 10, "category": "c"} for k in range(3)]
POPE = [{"question_id": k, "image": "a.png", "text": "Is there a dog?", "label": "yes", "subset": "random"} for k in range(3)]
ROWS = [{"image": "a.png", "sent": "it", "bbox": [1, 2, 30, 20], "width": 40, "height": 30, "area": 9.5, "split": "val"} for _ in range(3)]
COCO = {
    "images": [{"id": 7, "file_name": "a.png", "height": 30, "width": 40}],
    "annotations": [{"id": k, "image_id": 7, "bbox": [1, 2, 9, 9], "sentences": [{"sent": "it"}], "category_id": 1} for k in range(3)],
    "categories": [{"id": 1, "name": "person"}],
}
REFS = [
    {"ref_id": k, "ann_id": 1, "image_id": 7, "split": "val", "sentences": [{"sent": "it", "sent_id": k, "raw": "IT", "tokens": ["it"]}]}
    for k in range(3)
]
LAYOUTS = {
    "vqa": ("vqa", "q.jsonl", VQA, as_lines),
    "vqa in a list": ("vqa", "q.json", VQA, as_json),
    "pope": ("pope", "q.jsonl", POPE, as_lines),
    "refcoco": ("refcoco", "q.jsonl", ROWS, as_lines),
    "refcoco as COCO": ("refcoco", "q.json", COCO, as_json),
}


@pytest.fixture
def use(tmp_path):
    """Open a task and ask everything of it that a run asks."""
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")

    def use(spec, data):
        task = open_task(spec, data, images=tmp_path)
        task.fingerprint()
        for i in range(min(3, len(task))):
            said = [task.identify(i), task.image_name(i), task.prompt(i, Wording()), task.truth(i), task.tags(i), task.region(i)]
            json.dumps(said, ensure_ascii=False).encode()
            picture = task.image(i)
            seen = Seen((picture.height, picture.width), (28, 28))
            scores = task.score(i, "[0.1, 0.2, 0.3, 0.4] yes", seen)
            assert all(0 <= score <= 1 for score in scores.values())

    return use


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["values", "bytes"])
def test_mutated(layout, kind, survives, random, tmp_path, use):
    spec, name, whole, write = LAYOUTS[layout]

    def read(data):
        (tmp_path / name).write_bytes(data)
        use(spec, tmp_path / name)

    make = (lambda: write(mutated_json(whole, random))) if kind == "values" else (lambda: mutated(write(whole), random))
    inputs = [("whole", write(whole)), *((f"{layout} {kind} {k}", make()) for k in range(times(60, 300)))]
    assert survives("question files mutated", read, inputs).read


@pytest.mark.parametrize("kind", ["values", "bytes", "bytes of protocol 5", "instances"])
def test_refs(kind, survives, random, tmp_path, use):
    def read(given):
        refs, instances = given
        (tmp_path / "refs(unc).p").write_bytes(refs)
        (tmp_path / "instances.json").write_bytes(instances)
        use("refcoco", tmp_path)

    plain, coco = pickle.dumps(REFS, protocol=2), as_json(COCO)
    make = {
        "values": lambda: (pickle.dumps(mutated_json(REFS, random), protocol=2), coco),
        "bytes": lambda: (mutated(plain, random), coco),
        "bytes of protocol 5": lambda: (mutated(pickle.dumps(REFS, protocol=5), random), coco),
        "instances": lambda: (plain, as_json(mutated_json(COCO, random))),
    }[kind]
    inputs = [("whole", (plain, coco)), *((f"refs {kind} {k}", make()) for k in range(times(80, 500)))]
    assert survives("refs mutated", read, inputs).read


@pytest.mark.parametrize("compression", ["none", "snappy", "zstd"])
def test_parquet(compression, survives, random, tmp_path, use):
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed: parquet cannot be read")
    from pyarrow import parquet

    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    picture = io.BytesIO()
    Image.new("RGB", (40, 30)).save(picture, "PNG")
    rows = [{**row, "image": {"bytes": picture.getvalue() if k else None, "path": "a.png"}} for k, row in enumerate(VQA)]
    buffer = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(rows), buffer, compression=compression)
    data = buffer.getvalue()

    def read(given):
        (tmp_path / "q.parquet").write_bytes(given)
        use("vqa", tmp_path / "q.parquet")

    inputs = [("whole", data), *((f"parquet {compression} {k}", mutated(data, random)) for k in range(times(80, 500)))]
    assert survives("parquet files mutated", read, inputs).read
