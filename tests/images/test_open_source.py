"""From what the user wrote to an image source, and the hints when that is not clear."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from biaskit.errors import BiaskitError
from biaskit.images import open_source
from biaskit.images.coco import CocoSource
from biaskit.images.coco_files import cache_directory
from biaskit.images.folder import FolderSource


def annotations(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"images": [{"id": i, "file_name": f"{i}.jpg"} for i in range(3)], "annotations": []}))
    return path


def pictures(directory: Path) -> Path:
    directory.mkdir(parents=True)
    for i in range(3):
        Image.new("RGB", (40 + i, 30)).save(directory / f"{i}.jpg")
    return directory


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("BIASKIT_COCO", raising=False)
    annotations(tmp_path / "data" / "annotations" / "instances_val2017.json")
    pictures(tmp_path / "data" / "val2017")
    return tmp_path / "data"


def test_open_source_by_what_the_user_wrote(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(open_source("coco", coco_root=root), CocoSource)
    monkeypatch.setenv("BIASKIT_COCO", str(root))
    assert open_source("coco").fingerprint() == open_source("coco", coco_root=root).fingerprint()
    assert isinstance(open_source(root), CocoSource)
    assert isinstance(open_source(root / "val2017"), FolderSource)
    by_file = open_source(str(root / "annotations" / "instances_val2017.json"))
    assert by_file[2].size == (42, 30)
    generated = open_source("generated", n=5, seed=2)
    assert (generated.name, len(generated), generated.identify(0)) == ("generated", 5, "generated-2-000000")
    assert len(open_source("generated")) == 1000
    beside = annotations(pictures(tmp_path / "own") / "labels.json")
    assert open_source(beside)[1].size == (41, 30)


def test_open_source_helps(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    for spec, hint in {
        "cocoo": r"did you mean coco",
        "genrated": r"did you mean generated\?",
        "va2017": r"did you mean val2017\?",
        "zzzz": r"give coco, colours, generated, grey, noise, scenes, scenes-empty, scenes-photo, a directory of images, or a COCO anno",
        "val2017/0.jpg": r"not a single file",
    }.items():
        with pytest.raises(BiaskitError, match=f"unknown image source '{spec}'") as caught:
            open_source(spec)
        assert re.search(hint, caught.value.hint), caught.value.hint
    with pytest.raises(BiaskitError, match=r"a COCO root \('/data'\) does not go with the image source 'generated'"):
        open_source("generated", coco_root="/data")


def test_cache_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIASKIT_CACHE", "/one")
    monkeypatch.setenv("XDG_CACHE_HOME", "/two")
    assert cache_directory() == Path("/one/coco")
    monkeypatch.delenv("BIASKIT_CACHE")
    assert cache_directory() == Path("/two/biaskit/coco")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_directory() == Path("~/.cache/biaskit/coco").expanduser()
