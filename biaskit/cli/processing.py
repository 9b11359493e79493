"""Options of the commands that run a model on images: where it lies, resolution, tiles, padding, conversation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from biaskit.cli.options import read_pairs

DeviceMap = Annotated[
    str | None,
    typer.Option(help="auto, balanced, sequential: spread a model over several GPUs, the CPU and disk, where one device is too small."),
]
_RESOLUTION = "The scores and the number of visual tokens depend on it."

MinPixels = Annotated[int | None, typer.Option(min=1, help=f"Least pixels an image is scaled to (Qwen-VL). {_RESOLUTION}")]
MaxPixels = Annotated[int | None, typer.Option(min=1, help=f"Most pixels an image is scaled to (Qwen-VL). {_RESOLUTION}")]
MaxTiles = Annotated[int | None, typer.Option(min=1, help=f"Most tiles an image is cut into (InternVL). {_RESOLUTION}")]
ImageMode = Annotated[
    str | None, typer.Option(help="pad or crop: how an image is made square (LLaVA-1.5; its published numbers used pad).")
]
Conversation = Annotated[
    str | None, typer.Option(help="vicuna_v1: the chat template of LLaVA's own code, with a system prompt. (default: the checkpoint's)")
]

WordingFile = Annotated[
    Path | None,
    typer.Option(
        "--wording",
        help="How tasks ask instead of as published: a JSON object with some of region, short and yes_no, each with one {}, such as "
        '{"region": "Where is {}?"}.',
    ),
]

Generation = Annotated[
    list[str] | None,
    typer.Option(
        "--generation",
        help="A setting of generate(), KEY=VALUE, such as repetition_penalty=1.05; may be repeated. (default: plain greedy decoding, "
        "whatever the checkpoint's own generation config says)",
    ),
]


def generation_of(words: list[str] | None) -> dict[str, Any]:
    """Read KEY=VALUE; values are JSON where they can be, else text."""
    from biaskit.engine.greedy import check_generation

    return check_generation(read_pairs(words or [], "--generation"))


def choices(
    min_pixels: int | None, max_pixels: int | None, max_tiles: int | None, image_mode: str | None, conversation: str | None
) -> dict[str, Any]:
    """Return the options by name, as `load_model` and `read_checkpoint` take them."""
    return {
        "min_pixels": min_pixels, "max_pixels": max_pixels, "max_tiles": max_tiles, "image_mode": image_mode, "conversation": conversation,
    }  # fmt: skip
