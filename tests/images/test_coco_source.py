"""COCO from a local copy: the layouts, the zip, forked processes, hostile annotation files. Streaming is in test_coco_stream.py."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from biaskit.errors import BiaskitError, ImageSkipped, SourceError
from biaskit.images.coco import CocoSource
from biaskit.images.coco_files import find_coco
from biaskit.images.coco_records import read_records
from biaskit.images.generated import GeneratedSource

COUNT = 12


@pytest.fixture(autouse=True)
def no_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIASKIT_CACHE", str(tmp_path / "cache"))


def file_name(index: int) -> str:
    return f"{index:012d}.jpg"


def annotations(path: Path, records: list[dict[str, object]] | None = None) -> Path:
    """Write an annotation file with one box per image, images in falling order."""
    if records is None:
        records = [{"id": i, "file_name": file_name(i), "width": 40 + i, "height": 30} for i in reversed(range(COUNT))]
    boxes = [{"id": k, "image_id": r.get("id"), "category_id": 1, "bbox": [0, 0, 5, 5]} for k, r in enumerate(records)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"images": records, "annotations": boxes, "categories": [{"id": 1, "name": "thing"}]}))
    return path


def pictures(directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for i in range(COUNT):
        GeneratedSource(COUNT, 5).load(i).resize((40 + i, 30)).save(directory / file_name(i), quality=90)
    return directory


def zipped(path: Path, images: Path, prefix: str = "val2017/") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(images.iterdir()):
            archive.write(file, prefix + file.name)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    annotations(tmp_path / "coco" / "annotations" / "instances_val2017.json")
    pictures(tmp_path / "coco" / "val2017")
    return tmp_path / "coco"


def test_images_by_file_name(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = CocoSource(root / "annotations" / "instances_val2017.json", root / "val2017")
    assert len(source) == COUNT
    assert [source.identify(i) for i in range(COUNT)] == [file_name(i) for i in range(COUNT)]
    assert [source[i].size for i in range(COUNT)] == [(40 + i, 30) for i in range(COUNT)]
    assert source.records[3].id == 3
    assert source.open(2) == (root / "val2017" / file_name(2)).read_bytes()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("layout", ["val2017", "images/val2017", "val2017.zip", "images/val2017.zip", "images"])
@pytest.mark.parametrize("place", ["annotations/instances_val2017.json", "instances_val2017.json", "annotations_trainval2017.zip"])
def test_find_coco_knows_the_layouts(tmp_path: Path, layout: str, place: str) -> None:
    root = tmp_path / "root"
    made = annotations(tmp_path / "instances_val2017.json")
    (root / place).parent.mkdir(parents=True)
    if place.endswith(".zip"):
        with zipfile.ZipFile(root / place, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("annotations/captions_val2017.json", "{}")
            archive.write(made, "annotations/instances_val2017.json")
    else:
        made.rename(root / place)
    if layout.endswith(".zip"):
        zipped(root / layout, pictures(tmp_path / "unpacked"))
    else:
        pictures(root / layout)
    files = find_coco(root)
    assert files.images == root / layout
    assert files.annotations.is_relative_to(tmp_path / "cache" if place.endswith(".zip") else root)
    assert CocoSource(*files)[4].size == (44, 30)
    assert find_coco(root) == files
    if place.endswith(".zip"):  # what was unpacked before is looked at again
        files.annotations.write_text("cut short")
        assert CocoSource(*find_coco(root))[4].size == (44, 30)


def test_fingerprint_is_the_same_from_directory_zip_and_elsewhere(root: Path, tmp_path: Path) -> None:
    first = CocoSource(*find_coco(root))
    archive = zipped(tmp_path / "elsewhere" / "val2017.zip", root / "val2017")
    other = CocoSource(annotations(tmp_path / "elsewhere" / "some.json"), archive)
    assert first.fingerprint() == other.fingerprint()
    assert first.fingerprint() != first[1:].fingerprint()
    assert first[3].tobytes() == other[3].tobytes()


def test_zip_survives_pickling(root: Path, tmp_path: Path) -> None:
    source = CocoSource(root / "annotations" / "instances_val2017.json", zipped(tmp_path / "val2017.zip", root / "val2017"))
    expected = source.open(7)
    assert pickle.loads(pickle.dumps(source)).open(7) == expected


def _read_often(source: CocoSource, start: int, answers: multiprocessing.Queue[list[int]]) -> None:
    wrong = []
    for turn in range(60):
        index = (start + turn * 5) % COUNT
        try:
            right = source.load(index).size == (40 + index, 30)
        except BiaskitError:
            right = False
        if not right:
            wrong.append(index)
    answers.put(wrong)


def test_forked_processes_read_one_zip(root: Path, tmp_path: Path) -> None:
    source = CocoSource(root / "annotations" / "instances_val2017.json", zipped(tmp_path / "val2017.zip", root / "val2017"))
    source.open(0)  # the parent's handle is open when the children are born
    fork = multiprocessing.get_context("fork")
    answers = fork.Queue()
    children = [fork.Process(target=_read_often, args=(source, start, answers)) for start in range(4)]
    for child in children:
        child.start()
    _read_often(source, 2, answers)
    results = [answers.get(timeout=60) for _ in range(5)]
    for child in children:
        child.join(60)
    assert results == [[]] * 5
    assert [child.exitcode for child in children] == [0] * 4


def test_forked_child_opens_the_zip_for_itself(root: Path, tmp_path: Path) -> None:
    source = CocoSource(root / "annotations" / "instances_val2017.json", zipped(tmp_path / "val2017.zip", root / "val2017"))
    store = source._store
    parent = store._open()[0]  # type: ignore[attr-defined]
    assert store._open()[0] is parent  # type: ignore[attr-defined]
    child = os.fork()
    if child == 0:
        os._exit(7 if store._open()[0] is not parent else 1)  # type: ignore[attr-defined]
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_one_image_missing_is_skipped(root: Path, tmp_path: Path) -> None:
    json_file = root / "annotations" / "instances_val2017.json"
    archive = zipped(tmp_path / "val2017.zip", root / "val2017")
    (root / "val2017" / file_name(3)).unlink()
    with pytest.raises(ImageSkipped, match=r"'000000000003\.jpg' is missing(\n|$)"):
        CocoSource(json_file, root / "val2017")[3]
    partly = zipped(tmp_path / "partly.zip", root / "val2017", prefix="")
    with pytest.raises(ImageSkipped, match=r"'000000000003\.jpg' is missing from partly\.zip"):
        CocoSource(json_file, partly)[3]
    data = bytearray(archive.read_bytes())
    with zipfile.ZipFile(archive) as opened:
        place = opened.getinfo("val2017/" + file_name(5)).header_offset
    data[place + 100] ^= 255
    archive.write_bytes(data)
    with pytest.raises(ImageSkipped, match=r"'000000000005\.jpg' is damaged in val2017\.zip: Bad CRC"):
        CocoSource(json_file, archive)[5]


def test_member_is_found_by_its_last_part_unless_that_is_ambiguous(root: Path, tmp_path: Path) -> None:
    archive = zipped(tmp_path / "both.zip", root / "val2017", prefix="a/")
    with zipfile.ZipFile(archive, "a") as more:
        more.write(root / "val2017" / file_name(1), "b/" + file_name(0))
        more.writestr("__MACOSX/a/" + file_name(1), b"resource fork")
    source = CocoSource(root / "annotations" / "instances_val2017.json", archive)
    assert source[1].size == (41, 30)
    with pytest.raises(ImageSkipped, match=r"both\.zip has several files of that name"):
        source[0]
    exact = annotations(tmp_path / "exact.json", [{"id": 1, "file_name": "b/" + file_name(0)}])
    assert CocoSource(exact, archive)[0].size == (41, 30)


@pytest.mark.parametrize(
    "name", ["../secret.jpg", "/etc/../passwd", "a/../../b.jpg", "..\\b.jpg", "C:\\..\\b.jpg", "/", "", "a\0.jpg", "\ud800.jpg"]
)
def test_file_names_stay_inside(tmp_path: Path, name: str) -> None:
    path = annotations(tmp_path / "x.json", [{"id": 1, "file_name": name}])
    with pytest.raises(SourceError, match=r"is not a COCO annotation file: .*is not a relative path"):
        CocoSource(path, pictures(tmp_path / "val2017"))


@pytest.mark.parametrize(
    "names",
    [
        (r"\\server\share\a.jpg", r"\\server\share\sub\b.jpg"),
        ("//server/share/a.jpg", "/server/share/sub/b.jpg"),
        ("///share/a.jpg", "//share/sub/b.jpg"),
        (r"C:\\a.jpg", r"C:\sub\b.jpg"),
        ("//a.jpg", "sub/b.jpg"),
    ],
)
def test_file_names_of_network_shares(tmp_path: Path, names: tuple[str, str]) -> None:
    path = annotations(tmp_path / "x.json", [{"id": k, "file_name": name} for k, name in enumerate(names)])
    assert [record.file_name for record in read_records(path)] == ["a.jpg", "sub/b.jpg"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_annotations_are_a_regular_file(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"cannot be read: Is a directory"):
        read_records(tmp_path)
    pipe = tmp_path / "pipe.json"
    os.mkfifo(pipe)
    with pytest.raises(SourceError, match=r"cannot be read: it is not a regular file"):
        read_records(pipe)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "it is not JSON: JSONDecodeError"),
        ("<html>", "it is not JSON: JSONDecodeError"),
        ("[" * 100_000, "it is not JSON: nested too deeply"),
        ("[]", "it holds a list, not an object"),
        ("3", "its 'images' are not a list"),
        ('{"images": [{"id": 1}]}', "image 0 has no file_name but a dict"),
        ('{"images": [{"file_name": "a.jpg"}, 7]}', "image 1 has no file_name but 7"),
        ('{"images": [{"file_name": ["a.jpg"]}]}', "image 0 has no file_name"),
        ('{"images": [{"file_name": "a.jpg", "width": "9"}]}', "the width of image 0 is '9'"),
        ('{"images": [{"file_name": "a.jpg", "width": 9, "height": 1e400}]}', "the height of image 0 is inf"),
        ('{"images": [{"file_name": "a.jpg", "width": -9}]}', "the width of image 0 is -9"),
        ('{"images": [{"file_name": "a.jpg", "coco_url": {}}]}', "the coco_url of image 0 is a dict"),
        ('{"images": 3}', "its 'images' are not a list"),
        ('{"images": []}', "list no images"),
        ("{}", "list no images"),
    ],
)
def test_no_annotation_file(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(SourceError, match=reason) as caught:
        CocoSource(tmp_path / "x.json", tmp_path)
    assert "delete" not in caught.value.hint


def test_annotation_files_as_people_have_them(root: Path, tmp_path: Path) -> None:
    """Annotations without ids, captions, keypoints, file names of another machine: the images are listed all the same."""
    expected = CocoSource(root / "annotations" / "instances_val2017.json", root / "val2017")
    plain = json.loads((root / "annotations" / "instances_val2017.json").read_text())
    path = tmp_path / "some.json"
    for annotated in ([{"caption": "x"}], [{"keypoints": [1, 2, 2], "image_id": 1}], [3], None, {"a": 1}):
        path.write_text(json.dumps({**plain, "annotations": annotated}))
        assert CocoSource(path, root / "val2017").fingerprint() == expected.fingerprint()
    for folder in ("/data/coco/val2017/", "C:\\data\\val2017\\", "D:/val2017/"):
        images = [{**image, "file_name": folder + image["file_name"]} for image in plain["images"]]
        path.write_text(json.dumps({"images": images}))
        source = CocoSource(path, root / "val2017")
        assert source.fingerprint() == expected.fingerprint()
        assert source[3].size == expected[3].size
    images = [{**image, "file_name": "val2017\\" + image["file_name"]} for image in plain["images"]]
    path.write_text(json.dumps({"images": images}))
    assert CocoSource(path, root).identify(3) == "val2017/" + file_name(3)
    assert CocoSource(path, root)[3].size == expected[3].size


def test_records_that_share_an_id_are_all_there(root: Path, tmp_path: Path) -> None:
    records = [{"id": 1, "file_name": file_name(i), "width": 40 + i, "height": 30} for i in (0, 1, 1, 2)]
    source = CocoSource(annotations(tmp_path / "x.json", records), root / "val2017")
    assert [source.identify(i) for i in range(len(source))] == [file_name(i) for i in range(3)]
    records[1]["width"] = 99
    with pytest.raises(SourceError, match=r"list '000000000001\.jpg' twice"):
        CocoSource(annotations(tmp_path / "x.json", records), root / "val2017")


def test_what_does_not_fit_together_shows_at_once(root: Path, tmp_path: Path) -> None:
    json_file = root / "annotations" / "instances_val2017.json"
    with pytest.raises(SourceError, match=r"none of the 12 images of .* is in '.*annotations'"):
        CocoSource(json_file, root / "annotations")
    with pytest.raises(SourceError, match=r"none of the 12 images of .* has a coco_url"):
        CocoSource(json_file)
    with pytest.raises(SourceError, match="cannot read image zip"):
        CocoSource(json_file, json_file)
    with pytest.raises(SourceError, match=r"none of the 1 images"):
        CocoSource(annotations(tmp_path / "long.json", [{"id": 1, "file_name": "a" * 300}]), root / "val2017")
    with pytest.raises(SourceError, match=r"COCO images '.*nowhere' do not exist"):
        CocoSource(json_file, tmp_path / "nowhere")
    with pytest.raises(SourceError, match="do not exist"):
        CocoSource(tmp_path / "no.json")
    twice = annotations(tmp_path / "twice.json", [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "a.jpg"}])
    with pytest.raises(SourceError, match=r"list 'a\.jpg' twice"):
        CocoSource(twice, root / "val2017")


def test_find_coco_says_what_it_looked_for(root: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="is not a directory"):
        find_coco(tmp_path / "nowhere")
    with pytest.raises(SourceError, match="no annotations of train2017") as caught:
        find_coco(root, "train2017")
    assert caught.value.hint.startswith("it has val2017")
    with pytest.raises(SourceError, match="no annotations of val2017") as caught:
        find_coco(root / "val2017")
    assert "annotations/instances_val2017.json" in caught.value.hint
    (tmp_path / "annotations_trainval2017.zip").write_bytes(b"no zip")
    with pytest.raises(SourceError, match="cannot read annotation zip"):
        find_coco(tmp_path)
    zipfile.ZipFile(tmp_path / "annotations_trainval2017.zip", "w").close()
    with pytest.raises(SourceError, match=r"has no instances_val2017\.json"):
        find_coco(tmp_path)


def test_real_images(coco_sample: Path) -> None:
    source = CocoSource(*find_coco(coco_sample))
    assert len(source) == 117
    for index, record in enumerate(source.records):
        image = source[index]
        assert isinstance(image, Image.Image)
        assert (image.mode, image.size) == ("RGB", (record.width, record.height))
