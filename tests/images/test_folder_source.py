"""Folders of images, and what every source does: views, fingerprints, order."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from biaskit.errors import ImageSkipped, SourceError
from biaskit.images import order
from biaskit.images.folder import FolderSource
from biaskit.images.regular import MAX_ENCODED


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "pictures"
    for place, colour in {"b.png": "red", "a/z.JPG": "lime", "a/b/c.webp": "blue", "c.gif": "white"}.items():
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 24), colour).save(root / place)
    for place in ("notes.txt", ".hidden.png", ".cache/d.png", "a/._z.JPG"):
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (root / place).write_bytes(b"no image")
    return root


def names(source: FolderSource) -> list[str]:
    return [source.identify(index) for index in range(len(source))]


def test_images_by_relative_path(folder: Path) -> None:
    source = FolderSource(folder)
    assert names(source) == ["a/b/c.webp", "a/z.JPG", "b.png", "c.gif"]
    assert source[2].getpixel((0, 0)) == (255, 0, 0)
    assert source[-2].getpixel((0, 0)) == (255, 0, 0)
    assert [image.size for image in (source[index] for index in range(4))] == [(32, 24)] * 4
    with pytest.raises(IndexError):
        source[4]


def test_links_are_followed_but_not_in_circles(folder: Path) -> None:
    (folder.parent / "elsewhere").mkdir()
    (folder / "b.png").rename(folder.parent / "elsewhere" / "b.png")
    (folder / "linked").symlink_to(folder.parent / "elsewhere")
    (folder / "linked" / "up").symlink_to(folder)
    assert names(FolderSource(folder)) == ["a/b/c.webp", "a/z.JPG", "c.gif", "linked/b.png"]


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"'.*gone' is not a directory"):
        FolderSource(tmp_path / "gone")
    (tmp_path / "readme.md").write_text("hello")
    with pytest.raises(SourceError, match="holds no image file") as caught:
        FolderSource(tmp_path)
    assert ".jpeg, .jpg" in caught.value.hint


def test_one_file_gone_is_skipped_the_whole_folder_gone_is_not(folder: Path) -> None:
    source = FolderSource(folder)
    (folder / "b.png").unlink()
    with pytest.raises(ImageSkipped, match=r"'b.png' cannot be read: No such file"):
        source[2]
    shutil.rmtree(folder)
    with pytest.raises(SourceError, match="is gone"):
        source[0]


def test_undecodable_file_is_skipped_by_name(folder: Path) -> None:
    (folder / "a" / "z.JPG").write_bytes(b"junk")
    with pytest.raises(ImageSkipped, match=r"'a/z\.JPG' is not an image"):
        FolderSource(folder)[1]


def test_fingerprint_is_of_the_data_not_of_the_place(folder: Path, tmp_path: Path) -> None:
    source = FolderSource(folder)
    copy = shutil.copytree(folder, tmp_path / "elsewhere" / "deep")
    assert len(source.fingerprint()) == 64
    assert FolderSource(copy).fingerprint() == source.fingerprint()
    (copy / "b.png").write_bytes(b"mended")  # a calibration that stopped at a broken file goes on once it is mended
    assert FolderSource(copy).fingerprint() == source.fingerprint()
    (folder / "b.png").rename(folder / "bb.png")
    assert FolderSource(folder).fingerprint() != source.fingerprint()


def test_slice_is_a_view(folder: Path) -> None:
    source = FolderSource(folder)
    view = source[3:0:-1]
    assert (len(view), view.name) == (3, "folder")
    assert [view.identify(index) for index in range(3)] == ["c.gif", "b.png", "a/z.JPG"]
    assert view[1].getpixel((0, 0)) == (255, 0, 0)
    assert view.open(1) == (folder / "b.png").read_bytes()
    assert view[1:][0].getpixel((0, 0)) == (255, 0, 0)
    with pytest.raises(IndexError):
        view[3]
    assert view.fingerprint() == source[1:].fingerprint() != source.fingerprint()  # which images, not in what order
    assert source[:].fingerprint() == source.fingerprint()


def test_pickled_copy_is_the_same(folder: Path) -> None:
    for source in (FolderSource(folder), FolderSource(folder)[1:3]):
        copy = pickle.loads(pickle.dumps(source))
        assert copy.fingerprint() == source.fingerprint()
        assert copy[1].tobytes() == source[1].tobytes()


def test_order_is_a_seeded_permutation(folder: Path) -> None:
    source = FolderSource(folder)
    assert order(source, 3).dtype == np.int64
    assert sorted(order(source, 3)) == [0, 1, 2, 3]
    np.testing.assert_array_equal(order(source, 3), np.random.default_rng(3).permutation(4))
    assert len({tuple(order(source, seed)) for seed in range(20)}) > 5
    assert source[order(source, 3)[0]].mode == "RGB"  # NumPy integers are indices


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_named_as_a_picture_is_skipped(tmp_path: Path) -> None:
    """Nobody writes to it: opened the usual way, it waits for ever."""
    os.mkfifo(tmp_path / "a.jpg")
    (tmp_path / "b.jpg").symlink_to("/dev/zero")
    source = FolderSource(tmp_path)
    for index in range(2):
        with pytest.raises(ImageSkipped, match=r"cannot be read: it is not a regular file"):
            source.load(index)


def test_a_file_too_large_for_a_picture_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "a.jpg").open("wb") as file:
        file.truncate(MAX_ENCODED + 1)
    with pytest.raises(ImageSkipped, match=f"it has {MAX_ENCODED + 1} bytes, over the limit"):
        FolderSource(tmp_path).load(0)
