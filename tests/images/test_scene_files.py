"""Scenes on disk: pycocotools and our own COCO source read them, and they say the same as the scenes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from biaskit.cli.scenes import scenes
from biaskit.errors import SourceError
from biaskit.images import open_source
from biaskit.images.coco import CocoSource
from biaskit.images.scenes.draw import COLOUR_NAMES, SHAPES, SIZES
from biaskit.images.scenes.files import write_scenes
from biaskit.images.scenes.source import SceneSource

app = typer.Typer()
app.command()(scenes)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("scenes") / "out"
    write_scenes(SceneSource(10, 2), out)
    return out


def test_our_coco_source_reads_it(written: Path) -> None:
    source = open_source(written)
    assert isinstance(source, CocoSource)
    assert [source[i].tobytes() for i in range(10)] == [SceneSource(10, 2)[i].tobytes() for i in range(10)]
    assert source.extent(0) == "168x168"


def test_pycocotools_reads_it_and_masks_fill_the_boxes(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from pycocotools.coco import COCO

    coco = COCO(str(written / "annotations" / "instances_val2017.json"))
    annotations = coco.loadAnns(coco.getAnnIds())
    assert len(annotations) == sum(len(SceneSource(10, 2).things(i)) for i in range(10))
    for annotation in annotations:
        mask = coco.annToMask(annotation)
        rows, cols = np.nonzero(mask)
        x, y, wide, high = annotation["bbox"]
        edges = [cols.min() - x, rows.min() - y, cols.max() + 1 - x - wide, rows.max() + 1 - y - high]
        assert np.abs(edges).max() < 2
        assert mask.sum() == pytest.approx(annotation["area"], rel=0.15)
        assert annotation["colour"] in COLOUR_NAMES
        assert annotation["size"] in SIZES
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == list(SHAPES)
    capsys.readouterr()


def test_expressions_fit_one_annotation_each(written: Path) -> None:
    annotations = json.loads((written / "annotations" / "instances_val2017.json").read_text())["annotations"]
    entries = json.loads((written / "referring_expressions.json").read_text())
    assert len(entries) == len(annotations)
    for entry in entries:
        here = [a for a in annotations if a["image_id"] == entry["image_id"]]
        assert entry["sentences"][0]["sent"].count(" ") == 2
        for sentence in entry["sentences"]:
            words = set(sentence["sent"].split()) - {"object"}
            found = [a for a in here if words <= {a["size"], a["colour"], SHAPES[a["category_id"] - 1]}]
            assert [a["id"] for a in found] == [entry["ann_id"]]
            assert found[0]["bbox"] == entry["bbox"]


def test_questions(written: Path) -> None:
    rows = [json.loads(line) for line in (written / "presence.jsonl").read_text().splitlines()]
    assert [row["label"] for row in rows] == ["yes", "no"] * 5
    assert all((written / "val2017" / row["image"]).is_file() and row["text"].startswith("is there a ") for row in rows)
    rows = [json.loads(line) for line in (written / "attributes.jsonl").read_text().splitlines()]
    assert {row["answer"] for row in rows} <= {*COLOUR_NAMES, *SHAPES}


def test_same_bytes_twice(written: Path, tmp_path: Path) -> None:
    write_scenes(SceneSource(10, 2), tmp_path)
    for path in written.rglob("*.*"):
        assert (tmp_path / path.relative_to(written)).read_bytes() == path.read_bytes()


def test_nothing_is_overwritten_without_force(written: Path) -> None:
    with pytest.raises(SourceError, match="is not empty"):
        write_scenes(SceneSource(1), written)


def test_empty_scenes_have_no_questions(tmp_path: Path) -> None:
    write_scenes(SceneSource(2, 0, "empty"), tmp_path)
    assert (tmp_path / "presence.jsonl").read_text().strip() == ""
    assert len(open_source(tmp_path)) == 2


def test_command(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["--out", str(tmp_path / "new"), "-n", "3", "--placement", "photo", "--seed", "4", "--json"])
    assert result.exit_code == 0
    told = json.loads(result.stdout)
    assert (told["n"], told["placement"], told["seed"]) == (3, "photo", 4)
    assert Path(told["annotations"]).is_file()
    assert open_source(tmp_path / "new")[2].tobytes() == SceneSource(3, 4, "photo")[2].tobytes()
