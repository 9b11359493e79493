"""Data that contradicts its pictures: resized and turned copies, boxes in other units, ids that two records share."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from biaskit.errors import TaskError
from biaskit.images.decode import decode, measure
from biaskit.tasks import Seen, open_task
from biaskit.tasks.boxes import write_box
from biaskit.tasks.conventions import BoxConvention
from biaskit.tasks.frames import UNCLEAR, frame_of, same_shape
from biaskit.tasks.pictures import Pictures

BOXES = BoxConvention(units="thousand")
W, H, BOX = 640, 480, (400.0, 40.0, 600.0, 200.0)


def marked(orientation=1, size=None, kind="PNG"):
    """A black picture as annotated, white within the box; stored as it was annotated, and said to be turned."""
    pixels = np.zeros((H, W, 3), dtype=np.uint8)
    pixels[int(BOX[1]) : int(BOX[3]), int(BOX[0]) : int(BOX[2])] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = Image.fromarray(pixels)
    buffer = io.BytesIO()
    (picture.resize(size, Image.Resampling.NEAREST) if size else picture).save(buffer, kind, exif=exif)
    return buffer.getvalue()


def bright(picture):
    """The box of what is white."""
    ys, xs = np.nonzero(np.asarray(picture)[..., 0] > 127)
    return xs.min(), ys.min(), xs.max() + 1, ys.max() + 1


def opened(tmp_path, rows, spec="refcoco", name="refcoco_val.jsonl"):
    (tmp_path / name).write_text("\n".join(map(json.dumps, rows)))
    return open_task(spec, tmp_path / name, images=tmp_path)


def row(name="a.png", **more):
    return {"image": name, "sent": "the thing", "bbox": BOX, "width": W, "height": H, **more}


CASES = {
    "plain": (1, None, None),
    "turned 6": (6, None, "turned by"), "turned 8": (8, None, "turned by"), "transposed 5": (5, None, "turned by"),
    "transposed 7": (7, None, "turned by"), "half": (1, (320, 240), "a resized copy"), "twice": (1, (1280, 960), "a resized copy"),
    "half and turned 6": (6, (320, 240), "a resized copy, turned"), "third and turned 8": (8, (213, 160), "a resized copy, turned"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_a_perfect_answer_is_perfect_in_any_copy(tmp_path, case, kind):
    orientation, size, how = CASES[case]
    (tmp_path / "a.png").write_bytes(marked(orientation, size, kind))
    task = opened(tmp_path, [row()])
    picture = task.image(0)
    right = bright(picture)
    seen = Seen((picture.height, picture.width), (picture.height, picture.width), boxes=BOXES)
    assert task.score(0, write_box(right, seen), seen)["iou"] > 0.97
    assert task.truth(0) == list(BOX)
    region = np.array(task.region(0)) * ([picture.height, picture.width] * 2)
    np.testing.assert_allclose(region, [right[1], right[0], right[3], right[2]], atol=1)
    tags = task.tags(0)
    assert tags.get("picture", "").startswith(how or "") and ("picture" in tags) == (how is not None)
    assert tags["row"] == ("top" if (right[1] + right[3]) / 2 < picture.height / 3 else tags["row"])
    assert task.fingerprint() == opened(tmp_path, [row()]).fingerprint()


@pytest.mark.parametrize("orientation", [2, 3, 4])
def test_what_the_size_cannot_tell_is_taken_as_upright_and_counted(tmp_path, orientation):
    (tmp_path / "a.png").write_bytes(marked(orientation))
    assert opened(tmp_path, [row()]).tags(0)["picture"] == UNCLEAR


@pytest.mark.parametrize(("size", "orientation"), [((640, 400), 1), ((480, 640), 1), ((640, 640), 1), ((300, 300), 6)])
def test_another_shape_is_refused(tmp_path, size, orientation):
    (tmp_path / "a.png").write_bytes(marked(orientation, size))
    task = opened(tmp_path, [row()])
    said = rf"a\.png has {size[0]}x{size[1]} pixels, but the data says 640x480"
    seen = Seen((size[1], size[0]), (size[1], size[0]), boxes=BOXES)
    for act in (lambda: task.image(0), lambda: task.score(0, "(1,1),(2,2)", seen), lambda: task.tags(0), lambda: task.region(0)):
        with pytest.raises(TaskError, match=said):
            act()


@pytest.mark.parametrize("size", [None, (320, 240)])
def test_a_question_reads_its_picture_once(tmp_path, size, monkeypatch):
    (tmp_path / "a.png").write_bytes(marked(6, size))
    task = opened(tmp_path, [row(), row(sent="another thing")])
    files = []
    monkeypatch.setattr(Pictures, "read", lambda self, name, read=Pictures.read: files.append(name) or read(self, name))
    for i in range(2):
        picture = task.image(i)
        seen = Seen((picture.height, picture.width), (picture.height, picture.width), boxes=BOXES)
        assert task.score(i, write_box(bright(picture), seen), seen)["iou"] > 0.97 and task.tags(i) and task.region(i)
    assert files == ["a.png"] * 2


def test_a_picture_that_is_not_here_does_not_keep_from_reading_the_data(tmp_path):
    assert opened(tmp_path, [row()]).tags(0) == {"size": "large", "row": "top", "ring": "edge"}
    with pytest.raises(TaskError, match="is not there"):
        opened(tmp_path, [row()]).image(0)


@given(st.integers(20, 5000), st.integers(20, 5000), st.floats(0.05, 3))
def test_rounded_copies_have_the_same_shape(rows, cols, scale):
    small = max(1, round(rows * scale)), max(1, int(cols * scale))
    assert same_shape((rows, cols), small)
    assert not same_shape((rows, cols), (rows, cols + cols // 3 + 9)) or rows < 4


def test_turns_are_those_of_the_decoder():
    for orientation in range(1, 9):
        data = marked(orientation)
        frame = frame_of((H, W), measure(data, "x"))
        if orientation in (1, 5, 6, 7, 8):
            assert frame.place(BOX) == pytest.approx(bright(decode(data, "x")))


@pytest.mark.parametrize("sized", [True, False])
@pytest.mark.parametrize("key", ["bbox", "bbox_xyxy", "bbox_xywh"])
def test_boxes_in_fractions_of_one(tmp_path, sized, key):
    (tmp_path / "a.png").write_bytes(marked())
    box = [400 / W, 40 / H, (200 if key == "bbox_xywh" else 600) / W, (160 if key == "bbox_xywh" else 200) / H]
    one = {"image": "a.png", "sent": "x", key: box, **({"width": W, "height": H} if sized else {})}
    task = opened(tmp_path, [one])
    assert task.truth(0) == pytest.approx(BOX)
    assert task.tags(0) == {"size": "large", "row": "top", "ring": "edge", "box": "in fractions of 1 in the data"}
    seen = Seen((H, W), (476, 644), boxes=BOXES)
    assert task.score(0, write_box(BOX, seen), seen)["iou"] > 0.97
    with pytest.raises(TaskError, match=r"row 1 .* in fractions of 1 \(1 have\), but 2 others are in pixels"):
        opened(tmp_path, [row(), one, row()])


@pytest.mark.parametrize("bbox", [[266, 10, 468, 269], [200, 100, 660, 470], [-100, 1, 5, 5]])
def test_a_box_past_the_edge_is_refused_without_a_size_too(tmp_path, bbox):
    """Read as x, y, wide, high the first one ends at 734 of 640."""
    (tmp_path / "a.png").write_bytes(marked())
    one = {"image": "a.png", "answer" if bbox[0] == 266 else "sent": "x", "bbox": bbox}
    with pytest.raises(TaskError, match=r"is not within a\.png, which has 640x480 pixels") as caught:
        opened(tmp_path, [one]).image(0)
    assert "box=xyxy" in caught.value.hint
    with pytest.raises(TaskError, match="is not a box within the image"):
        opened(tmp_path, [{**one, "width": W, "height": H}])


def test_a_box_without_a_size_is_named(tmp_path):
    """[200, 100, 600, 470] of 640 × 480 could be thousandths: nobody can tell, so a report counts those that were taken as pixels."""
    (tmp_path / "a.png").write_bytes(marked())
    one = {"image": "a.png", "sent": "x", "bbox": [200, 100, 600, 470]}
    assert opened(tmp_path, [one]).tags(0)["box"] == "taken as pixels: the data gives no size"
    assert "box" not in opened(tmp_path, [{**one, "width": W, "height": H}]).tags(0)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"width": "wide"}, "width is 'wide'"),
        ({"height": -3}, "height is '-3'"),
        ({"height": 1e400}, "height is 'inf'"),
        ({"width": True}, "width is 'True'"),
        ({"width": 640.5}, "width is '640.5'"),
        ({"area": "large"}, "area is 'large'"),
        ({"area": 10**400}, "area is '1000"),
        ({"bbox": [10**400, 0, 1, 1]}, "no box of four numbers"),
        ({"bbox": {"a": 1}}, "no box of four numbers"),
    ],
)  # fmt: skip
def test_values_of_the_wrong_type(tmp_path, more, says):
    with pytest.raises(TaskError, match=f"row 0 of .*{says}"):
        opened(tmp_path, [row(**more)])


def test_records_that_share_an_id(tmp_path):
    found = {
        "images": [{"id": 7, "file_name": "a.png", "height": H, "width": W}] * 2,
        "annotations": [{"id": 1, "image_id": 7, "bbox": [1, 2, 3, 4], "caption": "x"}],
    }
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(found))
    assert len(open_task("refcocog", path)) == 1
    found["images"] = [*found["images"], {"id": 7, "file_name": "b.png", "height": H, "width": W}]
    path.write_text(json.dumps(found))
    with pytest.raises(TaskError, match=r"1 images of .* share their id with another one"):
        open_task("refcocog", path)
