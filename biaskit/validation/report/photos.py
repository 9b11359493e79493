"""The pictures of a report's gallery: small, and only where the task's data can be opened and is that of the run."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from biaskit.errors import BiaskitError
from biaskit.tasks import open_task
from biaskit.tasks.base import Task
from biaskit.validation.report.gallery import Gallery, Photo

SIDE = 224
"""Pixels of the longer side: about 10 kB, so that a page of three tasks with six questions each grows by less than 300 kB."""
QUALITY = 72


def with_photos(found: Sequence[Gallery], data: Path | None = None, images: Path | None = None) -> list[Gallery]:
    """Return the galleries with the pictures of their questions; if the data cannot be opened, they are unchanged but for a note.

    Args:
        found: from `galleries`. data, images: of tasks that read files, as for `biaskit validate`.
    """
    return [_illustrated(one, data, images) for one in found]


def _illustrated(gallery: Gallery, data: Path | None, images: Path | None) -> Gallery:
    try:
        task = open_task(gallery.task, data, images=images)
        places = {task.identify(i): i for i in range(len(task))}
        photos = [_photo(task, places.get(example.id), example.image) for example in gallery.examples]
    except BiaskitError as error:
        return replace(
            gallery, without=f"Without pictures: {error.message}. `biaskit validate report --data DIR` says where the questions are."
        )
    if not any(photos):
        return replace(gallery, without="Without pictures: the questions of the data are not those of the run.")
    return replace(gallery, examples=[replace(one, photo=photo) for one, photo in zip(gallery.examples, photos, strict=True)])


def _photo(task: Task, place: int | None, name: str) -> Photo | None:
    """A small copy of a question's image; None if the task's image of that id has another name."""
    if place is None or task.image_name(place) != name:
        return None
    from PIL import Image  # reports without pictures do without it

    picture = task.image(place).convert("RGB")
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    if min(picture.size) < 1:
        return None
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=QUALITY, optimize=True)
    part = task.region(place)
    region = None if part is None else (part[1], part[0], part[3], part[2])
    return Photo(buffer.getvalue(), *picture.size, region)
