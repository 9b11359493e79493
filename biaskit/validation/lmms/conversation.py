"""The turns of a conversation and their pictures, from either of lmms-eval's two forms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from biaskit.errors import BiaskitError, SourceError
from biaskit.images.decode import decode

PLACEHOLDER = "<image>"
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp"})
_STILLS = "biaskit prunes the visual tokens of still images: choose image tasks, or lmms-eval's own model for this one"


@dataclass(frozen=True, eq=False)
class Conversation:
    """One request.

    Attributes:
        messages: turns as chat templates take them: `{"role": …, "content": [{"type": "image"}, {"type": "text", "text": …}]}`.
        images: RGB, in the order of the turns.
    """

    messages: list[dict[str, Any]]
    images: list[Image.Image]


def from_messages(messages: Iterable[Mapping[str, Any]]) -> Conversation:
    """Read the chat form: turns whose parts have `type` and `text` or `url`.

    Raises:
        BiaskitError: a part is neither text nor a still image. SourceError: an image cannot be read.
    """
    turns: list[dict[str, Any]] = []
    images: list[Image.Image] = []
    for message in messages:
        content: list[dict[str, str]] = []
        parts = message["content"]
        for part in [{"type": "text", "text": parts}] if isinstance(parts, str) else parts:
            if part["type"] == "text":
                content.append({"type": "text", "text": part["text"]})
            elif part["type"] == "image":
                content.append({"type": "image"})
                images.append(picture(part["url"]))
            else:
                raise BiaskitError(f"the task shows a model {part['type']}", _STILLS)
        turns.append({"role": message["role"], "content": content})
    return Conversation(turns, images)


def from_visuals(text: str, visuals: Sequence[Any] | None) -> Conversation:
    """Read the simple form: one text, and the pictures of the document.

    The pictures come before the text, or at its placeholders `<image>` if there is one for each picture.

    Raises:
        BiaskitError: a visual is not a still image. SourceError: an image cannot be read.
    """
    images = [picture(visual) for visual in visuals or []]
    pieces = text.split(PLACEHOLDER)
    if not images or len(pieces) - 1 != len(images):
        content = [*({"type": "image"} for _ in images), {"type": "text", "text": text}]
    else:
        content = []
        for number, piece in enumerate(pieces):
            content += [{"type": "image"}] if number else []
            content += [{"type": "text", "text": piece}] if piece else []
    return Conversation([{"role": "user", "content": content}], images)


def picture(visual: Any) -> Image.Image:
    """Return a task's picture as RGB: an image without applying its EXIF orientation (as lmms-eval's models), a file upright.

    Raises:
        BiaskitError: it is a video, a sound, an address, or of an unknown type. SourceError: the file cannot be read.
    """
    if isinstance(visual, Image.Image):
        return visual if visual.mode == "RGB" else visual.convert("RGB")
    if isinstance(visual, Mapping) and visual.get("type") == "image":
        visual = visual.get("url") or visual.get("path")
    if not isinstance(visual, str | Path):
        raise BiaskitError(f"the task shows a model {type(visual).__name__}, not an image", _STILLS)
    if "://" in str(visual):
        raise BiaskitError(f"the task names a picture by its address {visual}", "download it: biaskit fetches nothing while it evaluates")
    path = Path(visual)
    if path.suffix.lower() not in SUFFIXES:
        raise BiaskitError(f"the task shows a model the file {path.name}", _STILLS)
    try:
        return decode(path.read_bytes(), path.name)
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror}", "check the path that the task gives") from error
