"""The image list of a large annotation file is kept by the file's hash, and what was kept is never trusted more than the file."""

from __future__ import annotations

import hashlib
import json

import pytest

from biaskit.errors import SourceError
from biaskit.images import coco_records, kept_records
from biaskit.images.coco_records import read_records

LIST = ".some.json.images"


@pytest.fixture(autouse=True)
def all_are_large(tmp_path, monkeypatch):
    monkeypatch.setenv("BIASKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(kept_records, "WORTH", 1)


@pytest.fixture
def path(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    return written(folder / "some.json", "b.jpg", "a.jpg")


def written(path, *names):
    images = [{"id": f"no {k}", "file_name": name, "width": 9, "coco_url": f"http://x.test/{name}"} for k, name in enumerate(names)]
    boxes = [{"image_id": 1, "bbox": [0, 0, 5, 5], "segmentation": [[1, 2, 3, 4]]}] * 3
    path.write_text(json.dumps({"images": images, "annotations": boxes}))
    return path


@pytest.fixture
def parsed(monkeypatch):
    """How often an annotation file was read as a whole."""
    calls, read = [], coco_records.read_regular

    def counting(place, *limit):
        calls.append(place)
        return read(place, *limit)

    monkeypatch.setattr(coco_records, "read_regular", counting)
    return calls


def test_the_second_opening_parses_nothing(path, parsed):
    first = read_records(path)
    assert [record.file_name for record in first] == ["a.jpg", "b.jpg"]
    assert {file.name for file in path.parent.iterdir()} == {"some.json", LIST}
    assert read_records(path) == first
    assert parsed == [path]


def test_a_changed_file_is_read_again_and_leaves_one_list(path, parsed):
    read_records(path)
    written(path, "c.jpg")
    for _ in range(2):
        assert [record.file_name for record in read_records(path)] == ["c.jpg"]
    assert len(parsed) == 2
    assert {file.name for file in path.parent.iterdir()} == {"some.json", LIST}


def signed(path, body):
    """A list that claims to be of this file."""
    of, own = (hashlib.blake2b(data, digest_size=32).hexdigest() for data in (path.read_bytes(), body))
    return f"{of} {own}\n".encode() + body


@pytest.mark.parametrize(
    "poison",
    [
        lambda path, whole: whole[:-9],
        lambda path, whole: whole.replace(b"a.jpg", b"z.jpg"),
        lambda path, whole: b"",
        lambda path, whole: b"\xff" * 99,
        lambda path, whole: signed(path, b'[{"file_name": "../../etc/passwd"}]'),
        lambda path, whole: signed(path, b'[{"file_name": "a.jpg", "width": []}]'),
        lambda path, whole: signed(path, b"[" * 100_000),
        lambda path, whole: signed(path, b"[]"),
        lambda path, whole: signed(path, b"3"),
    ],
    ids=["cut", "changed", "empty", "no text", "outside", "wrong type", "too deep", "no images", "no list"],
)
def test_a_poisoned_list_is_thrown_away(path, parsed, poison):
    first = read_records(path)
    good = (path.parent / LIST).read_bytes()
    (path.parent / LIST).write_bytes(poison(path, good))
    assert read_records(path) == first
    assert len(parsed) == 2
    assert (path.parent / LIST).read_bytes() == good


def test_without_a_place_beside_the_file_the_cache_has_it(path, tmp_path, parsed):
    (path.parent / LIST / "in the way").mkdir(parents=True)  # as root, who may write everywhere, a folder that is in the way
    first = read_records(path)
    assert read_records(path) == first
    assert parsed == [path]
    assert len(list((tmp_path / "cache" / "coco" / "lists").iterdir())) == 1


def test_without_any_place_it_is_parsed(path, tmp_path, parsed):
    (path.parent / LIST / "in the way").mkdir(parents=True)
    (tmp_path / "cache").write_text("")
    assert read_records(path) == read_records(path)
    assert len(parsed) == 2


def test_a_list_of_another_user_is_not_read(path, parsed, monkeypatch):
    read_records(path)
    monkeypatch.setattr(kept_records, "_owners", lambda path: {-1})
    read_records(path)
    assert len(parsed) == 2


def test_small_and_broken_files_leave_nothing(path, monkeypatch):
    broken = path.with_name("broken.json")
    broken.write_text('{"images": [{"file_name": "../a.jpg"}]}')
    with pytest.raises(SourceError, match="not a relative path"):
        read_records(broken)
    monkeypatch.setattr(kept_records, "WORTH", 1 << 20)
    read_records(path)
    assert {file.name for file in path.parent.iterdir()} == {"some.json", "broken.json"}
