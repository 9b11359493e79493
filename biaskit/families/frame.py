"""What a stock image processor does to a picture for a tower with a square input: pad to a square, resize, crop the centre."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from biaskit.errors import ModelError
from biaskit.families.base import PREPROCESSOR, PROCESSOR, Size
from biaskit.grid import Box

if TYPE_CHECKING:
    from torch import Tensor


def llava_settings(config: Any) -> dict[tuple[str, str], Any]:
    """Return what LLaVA and LLaVA-NeXT need of their processor; see `ModelFamily.processor_settings`."""
    vision = config.vision_config
    clip = vision.model_type == "clip_vision_model"
    square = {"height": vision.image_size, "width": vision.image_size}
    return {
        (PROCESSOR, "patch_size"): vision.patch_size,
        (PROCESSOR, "vision_feature_select_strategy"): config.vision_feature_select_strategy,
        (PROCESSOR, "num_additional_image_tokens"): int(clip),
        (PREPROCESSOR, "crop_size" if clip else "size"): square,
    }


@dataclass(frozen=True)
class Frame:
    """The part of an image that the tower receives.

    Attributes:
        size: (rows, cols) in pixels.
        box: the part of the image they cover, as fractions of it; below 0 and above 1 where they are padding.
    """

    size: Size
    box: Box

    def part(self, rows: int, cols: int) -> Box:
        """Return the part of the image that the first `rows` × `cols` pixels cover: a tower leaves out an incomplete last patch."""
        left, top, right, bottom = self.box
        return (left, top, left + (right - left) * cols / self.size[1], top + (bottom - top) * rows / self.size[0])


def side(size: Any, name: str) -> int | None:
    """Return one entry of an image processor's size, which is a dict or an object, or None where it is not set."""
    value = size.get(name) if isinstance(size, dict) else getattr(size, name, None)
    return None if value is None else int(value)


def bound_pixels(image_processor: Any, choices: Mapping[str, int | str]) -> None:
    """Set the least and largest number of pixels of an image processor that calls them its shortest and longest edge.

    Raises:
        ModelError: the least is more than the largest.
    """
    least = int(choices.get("min_pixels") or side(image_processor.size, "shortest_edge") or 1)
    most = int(choices.get("max_pixels") or side(image_processor.size, "longest_edge") or least)
    if least > most:
        raise ModelError(f"images of at least {least} and at most {most} pixels", "set --min-pixels and --max-pixels so that they agree")
    image_processor.size = type(image_processor.size)(shortest_edge=least, longest_edge=most)


def square_by(image_processor: Any, mode: str) -> Any:
    """Return the image processor that makes pictures square by padding or by cropping, all other settings as they are.

    Padding is that of LLaVA-1.5's own evaluation code: to a square of the mean colour, before the image is resized.

    Args:
        mode: `pad` or `crop`.

    Raises:
        ModelError: another mode, or a processor that has nothing to crop.
    """
    import transformers

    if mode not in ("pad", "crop"):
        raise ModelError(f"unknown image mode {mode!r}", "use pad or crop")
    if mode == "crop" and not getattr(image_processor, "do_center_crop", False):
        raise ModelError("this checkpoint's image processor has no crop", "use --image-mode pad, or leave the option out")
    settings = {key: value for key, value in image_processor.to_dict().items() if key not in ("image_processor_type", "processor_class")}
    settings |= {"do_center_crop": bool(getattr(image_processor, "do_center_crop", False)), "do_pad": mode == "pad"}
    suffix = "Pil" if type(image_processor).__name__.endswith("Pil") else ""
    return getattr(transformers, "LlavaImageProcessor" + suffix)(**settings)


def pads_to_square(image_processor: Any) -> bool:
    """True if pictures are padded to a square before they are resized, as the original code of LLaVA does."""
    return bool(getattr(image_processor, "do_pad", False)) and type(image_processor).__name__.startswith("LlavaImageProcessor")


def padded_square(size: Size) -> Box:
    """Return the box of the square that an image of (rows, cols) pixels is padded to, the image in its middle.

    Example:
        >>> padded_square((100, 200))
        (0.0, -0.5, 1.0, 1.5)
    """
    whole = max(size)
    before = [(whole - pixels) // 2 for pixels in size]
    return (-before[1] / size[1], -before[0] / size[0], (whole - before[1]) / size[1], (whole - before[0]) / size[0])


_LEVEL = 1 / 255 / 0.26
"""One level of a colour, normalised by the smallest deviation in use: padding has the mean colour, 0, but rounded down to a level."""


def unpadded(pixels: Tensor) -> Size:
    """Return (rows, cols) of the picture in a square that it was padded to with the mean colour, found from the pixels.

    A picture whose own border has exactly that colour is found too small; one that has no other colour is taken for the whole square.

    Args:
        pixels: [3, H, W], normalised.

    Example:
        >>> import torch
        >>> wide = torch.zeros(3, 8, 8)
        >>> wide[:, 2:6] = torch.linspace(-1, 1, 8)
        >>> unpadded(wide), unpadded(torch.ones(3, 8, 8))
        ((4, 8), (8, 8))
    """
    flat = (pixels.abs() <= _LEVEL).all(0)
    sides = [line.tolist() for line in (flat.all(1), flat.all(0))]
    if all(sides[0]):
        return len(sides[0]), len(sides[1])
    before = [min(line.index(False), line[::-1].index(False)) for line in sides]
    axis = int(before[1] > before[0])  # only the shorter side is padded
    size = [len(line) for line in sides]
    size[axis] -= 2 * before[axis]
    return size[0], size[1]


def frame(image_processor: Any, size: Size) -> Frame:
    """Follow an image of (rows, cols) pixels through a processor of the CLIP, SigLIP or LLaVA kind.

    Example:
        >>> from types import SimpleNamespace
        >>> square = {"height": 336, "width": 336}
        >>> clip = SimpleNamespace(do_resize=True, size={"shortest_edge": 336}, do_center_crop=True, crop_size=square)
        >>> frame(clip, (480, 640))
        Frame(size=(336, 336), box=(0.125, 0.0, 0.875, 1.0))
    """
    now, low, high = list(size), [0.0, 0.0], [1.0, 1.0]  # rows, then cols
    if pads_to_square(image_processor):
        now = [max(size)] * 2
        low[1], low[0], high[1], high[0] = padded_square(size)
    if getattr(image_processor, "do_resize", False):
        now = _resized(image_processor.size, now)
    if getattr(image_processor, "do_center_crop", False):
        crop = image_processor.crop_size
        for axis, wanted in enumerate((side(crop, "height"), side(crop, "width"))):
            assert wanted is not None
            start = (now[axis] - wanted) // 2
            step = (high[axis] - low[axis]) / now[axis]
            low[axis], high[axis] = low[axis] + start * step, low[axis] + (start + wanted) * step
            now[axis] = wanted
    return Frame((now[0], now[1]), (low[1], low[0], high[1], high[0]))


def _resized(wanted: Any, now: list[int]) -> list[int]:
    short = side(wanted, "shortest_edge")
    if short is None:
        return [side(wanted, "height") or now[0], side(wanted, "width") or now[1]]
    return [short if pixels == min(now) else int(short * pixels / min(now)) for pixels in now]
