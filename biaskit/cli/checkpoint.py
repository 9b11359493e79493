"""Options of the commands that run a checkpoint, declared once: where it runs, resolution, tiles, padding, conversation."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from biaskit.cli.options import Attention, Device, Dtype, Revision, read_pairs

if TYPE_CHECKING:
    from biaskit.families.checkpoints.load import Loaded

_RESOLUTION = "The scores and the number of visual tokens depend on it."

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
        "not the checkpoint's own generation config)",
    ),
]


@dataclass(frozen=True)
class Files:
    """Which files of a checkpoint are read, and how its processor is set: enough for a command that needs no weights."""

    revision: Revision = None
    min_pixels: Annotated[
        int | None, typer.Option(min=1, help=f"Minimum number of pixels an image is scaled to (Qwen-VL). {_RESOLUTION}")
    ] = None
    max_pixels: Annotated[
        int | None, typer.Option(min=1, help=f"Maximum number of pixels an image is scaled to (Qwen-VL). {_RESOLUTION}")
    ] = None
    max_tiles: Annotated[
        int | None, typer.Option(min=1, help=f"Maximum number of tiles an image is cut into (InternVL). {_RESOLUTION}")
    ] = None
    image_mode: Annotated[
        str | None, typer.Option(help="pad or crop: how an image is made square (LLaVA-1.5; its published numbers used pad).")
    ] = None
    conversation: Annotated[
        str | None, typer.Option(help="vicuna_v1: the chat template of LLaVA's own code, with a system prompt. (default: the checkpoint's)")
    ] = None

    def read(self, model: str) -> tuple[Any, Any, Any, Any]:
        """Return (place, family, config, processor) of a checkpoint, without its weights."""
        from biaskit.families.checkpoints.load import read_checkpoint

        return read_checkpoint(model, self.revision, {one.name: getattr(self, one.name) for one in fields(Files) if one.name != "revision"})


@dataclass(frozen=True)
class Checkpoint(Files):
    """`Files`, and the device, precision and attention implementation of the model."""

    device: Device = "auto"
    device_map: Annotated[
        str | None,
        typer.Option(help="auto, balanced, sequential: spread a model over several GPUs, the CPU and disk, where one device is too small."),
    ] = None
    dtype: Dtype = "auto"
    attention: Attention = "sdpa"

    def load(self, model: str, **more: Any) -> Loaded:
        """Load a checkpoint, and say on stderr what is happening; `more` as `load_model` takes it."""
        from biaskit.cli.console import say
        from biaskit.families.checkpoints.load import load_model

        return load_model(model, say=say, **asdict(self), **more)


def with_checkpoint(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of its parameter `checkpoint`, a `Files` or a `Checkpoint`, in place of that parameter."""
    hints = get_type_hints(command, include_extras=True)
    kind = hints.pop("checkpoint")
    options = get_type_hints(kind, include_extras=True)
    keyword = inspect.Parameter.KEYWORD_ONLY
    mine = [inspect.Parameter(one.name, keyword, default=one.default, annotation=options[one.name]) for one in fields(kind)]
    parameters: list[inspect.Parameter] = []
    for one in inspect.signature(command).parameters.values():
        parameters += mine if one.name == "checkpoint" else [one.replace(kind=keyword, annotation=hints[one.name])]

    def run(**values: Any) -> None:
        command(checkpoint=kind(**{one.name: values.pop(one.name) for one in mine}), **values)

    run.__name__, run.__doc__, run.__module__ = command.__name__, command.__doc__, command.__module__
    run.__annotations__ = {one.name: one.annotation for one in parameters} | {"return": None}
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return run


def generation_of(words: list[str] | None) -> dict[str, Any]:
    """Read KEY=VALUE; a value that is valid JSON is read as JSON, others as text."""
    from biaskit.engine.greedy import check_generation

    return check_generation(read_pairs(words or [], "--generation"))
