"""A question of the gallery as an HTML card: its image, the right answer, and each method's answer, kept tokens and box."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Sequence

from biaskit.text import for_html
from biaskit.validation.report.gallery import Answer, Example, Photo
from biaskit.validation.results.labels import UNPRUNED


def called(method: str) -> str:
    """The name of a method in the report."""
    return "unpruned" if method == UNPRUNED else method


def card(example: Example, name: str) -> str:
    """Return one card; right and wrong are words and signs, not only colours. name: the id of its image, unique on the page."""
    photo = example.photo
    drawn = photo is not None and any(answer.shown for answer in example.answers)
    head = '<tr><th scope="col">method</th><th scope="col">answer</th><th scope="col">verdict</th></tr>'
    if drawn:
        head = head.replace("</tr>", '<th scope="col">kept tokens, box</th></tr>')
    rows = "".join(
        _row(answer, f"<td>{_small(answer, photo, name)}</td>" if drawn and photo is not None else "") for answer in example.answers
    )
    return (
        f'<article class="card"><p><strong>{for_html(example.prompt)}</strong></p>{_large(photo, name)}<p class="note">right answer: '
        f"{for_html(example.truth)} · {for_html(example.image)}</p><table><thead>{head}</thead><tbody>{rows}</tbody></table></article>"
    )


def _row(answer: Answer, more: str) -> str:
    return (
        f'<tr class="{"right" if answer.right else "wrong"}"><th scope="row">{for_html(called(answer.method))}</th>'
        f'<td class="words">{for_html(answer.text)}</td><td class="verdict">{"✓ right" if answer.right else "✗ wrong"}</td>{more}</tr>'
    )


def _large(photo: Photo | None, name: str) -> str:
    """The picture with the right box."""
    if photo is None:
        return ""
    data = base64.b64encode(photo.jpeg).decode("ascii")
    image = f'<image id="{name}" href="data:image/jpeg;base64,{data}" width="{photo.width}" height="{photo.height}"/>'
    words = "the picture" if photo.region is None else "the picture, the right box dashed"
    return _svg("photo", photo, words, image + _box("truth", photo.region, photo))


def _small(answer: Answer, photo: Photo, name: str) -> str:
    """The picture with dropped cells veiled, and the box that was answered."""
    cells, grid, place = (answer.shown.get(key, ()) for key in ("cells", "grid", "place"))
    box = answer.shown.get("box", ())
    veil, words = "", "the picture"
    if len(grid) == 2 and len(place) == 4 and 0 < grid[0] * grid[1] <= 100_000:
        rows, cols = int(grid[0]), int(grid[1])
        kept = {int(cell) for cell in cells}
        veil = f'<path class="veil" d="{_veil(kept, (rows, cols), place, photo)}"/>'
        words = f"{len(kept)} of {rows * cols} cells kept"
    words += ", the answered box" if len(box) == 4 else ""
    return _svg("thumb", photo, words, f'<use href="#{name}"/>{veil}{_box("truth", photo.region, photo)}{_box("said", box, photo)}')


def _svg(kind: str, photo: Photo, words: str, inside: str) -> str:
    return f'<svg class="{kind}" viewBox="0 0 {photo.width} {photo.height}" role="img" aria-label="{for_html(words)}">{inside}</svg>'


def _box(kind: str, box: Sequence[float] | None, photo: Photo) -> str:
    if not box or len(box) != 4:
        return ""
    left, top, right, bottom = (value * side for value, side in zip(box, (photo.width, photo.height) * 2, strict=True))
    return f'<rect class="{kind}" x="{left:.1f}" y="{top:.1f}" width="{max(right - left, 0):.1f}" height="{max(bottom - top, 0):.1f}"/>'


def _veil(kept: set[int], grid: tuple[int, int], place: Sequence[float], photo: Photo) -> str:
    """The dropped cells as a path: one rectangle per run in a row."""
    rows, cols = grid
    left, top, right, bottom = (value * side for value, side in zip(place, (photo.width, photo.height) * 2, strict=True))
    wide, high = (right - left) / cols, (bottom - top) / rows
    parts = []
    for row in range(rows):
        for dropped, run in itertools.groupby(range(cols), key=lambda col: row * cols + col not in kept):
            span = list(run)
            if dropped:
                x, y, width = left + span[0] * wide, top + row * high, len(span) * wide
                parts.append(f"M{x:.1f} {y:.1f}h{width:.1f}v{high:.1f}h{-width:.1f}z")
    return "".join(parts)
