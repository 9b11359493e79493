"""Image sources: COCO, a folder, generated pictures, the embedded models' scenes. They give pictures and names; no model, no prompt."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from biaskit.errors import BiaskitError
from biaskit.files import existing
from biaskit.images.base import ImageSource, SourceRequest, View, order, sources
from biaskit.registry import named_arguments

__all__ = ["ImageSource", "SourceRequest", "View", "open_source", "order", "sources"]


@named_arguments
def open_source(
    spec: ImageSource | str | os.PathLike[str],
    *,
    coco_root: str | os.PathLike[str] | None = None,
    split: str = "val2017",
    n: int | None = None,
    seed: int = 0,
) -> ImageSource:
    """Open an image source by name or path.

    Args:
        spec: an image source, which is returned unchanged;
            `coco` (the local copy at `coco_root` or $BIASKIT_COCO, else streamed from the network), `generated`, `grey`, `noise` and
            `colours` (pictures without content), `scenes` (with `scenes-photo`, `scenes-empty`: see `images.scenes.draw.PLACEMENTS`), a
            directory (a COCO root or any folder of images), or a COCO annotation file (`*.json`; images beside it, else streamed). Names
            win over paths: write `./coco` for a directory called coco.
        coco_root: local copy of COCO; only for `coco`.
        split: which part of COCO.
        n: number of generated pictures; ignored for other sources.
        seed: of the generated pictures.

    Raises:
        SourceError: the source exists but cannot be used.
        BiaskitError: there is no source `spec`, or `coco_root` was given for another source.

    Example:
        >>> source = open_source("scenes", n=3)
        >>> len(source), source.load(0).size
        (3, (168, 168))
    """
    if isinstance(spec, ImageSource):
        return spec
    if not isinstance(spec, str | os.PathLike):
        raise BiaskitError(
            f"{spec!r} is not an image source", f"give {', '.join(sources.names())}, or the path of a directory or annotation file"
        )
    text = os.fspath(spec)
    if coco_root is not None and text != "coco":
        raise BiaskitError(f"a COCO root ({os.fspath(coco_root)!r}) does not go with the image source {text!r}", "use the source 'coco'")
    if text in sources:
        return sources.get(text).named(SourceRequest(text, n, seed, coco_root, split))
    path = Path(text).expanduser()
    there = existing(path)
    if there and path.is_dir():
        return _directory(path, split)
    if there and path.is_file() and path.suffix.lower() == ".json":
        return _annotations(path)
    raise BiaskitError(f"unknown image source {text[:300]!r}", _hint(text, path))


def _directory(path: Path, split: str) -> ImageSource:
    from biaskit.images.coco import open_coco
    from biaskit.images.coco_files import looks_like_coco
    from biaskit.images.folder import FolderSource

    return open_coco(path, split) if looks_like_coco(path) else FolderSource(path)


def _annotations(path: Path) -> ImageSource:
    from biaskit.images.coco import CocoSource
    from biaskit.images.coco_files import find_images

    split = path.stem.removeprefix("instances_")
    here = path.absolute().parent
    return CocoSource(path, find_images(here.parent, split) or find_images(here, split))


def _hint(text: str, path: Path) -> str:
    if (there := existing(path)) and there.is_file():
        return "give a directory of images or a COCO annotation file (*.json), not a single file"
    siblings = [str(place) for place in path.parent.iterdir()] if (above := existing(path.parent)) and above.is_dir() else []
    near = difflib.get_close_matches(text, [*sources.names(), *siblings], n=3, cutoff=0.6)
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"give {', '.join(sources.names())}, a directory of images, or a COCO annotation file (*.json)"
