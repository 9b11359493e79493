"""Options that mean the same in every command: each is declared here once, with its short form, panel and help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from biaskit.cli import complete

MODEL, DATA, PRUNING, RUNNING, RESULT = "Model", "Data", "Pruning", "Running", "Result"
"""The panels of a command's help."""


def _model(words: str) -> Any:
    return typer.Option("--model", "-m", rich_help_panel=MODEL, autocompletion=complete.models, show_default=False, help=words)


_NAMES = "Short name (biaskit models list), hub id, or checkpoint directory."
Model = Annotated[str, _model(_NAMES)]
SomeModel = Annotated[str | None, _model(_NAMES)]
LookingModel = Annotated[str | None, _model("The checkpoint that is asked about --image.")]
Device = Annotated[str, typer.Option("--device", rich_help_panel=MODEL, help="auto, cpu, cuda, cuda:1, mps.")]
Dtype = Annotated[str, typer.Option("--dtype", rich_help_panel=MODEL, help="auto, bfloat16, float16, float32, float64.")]
Attention = Annotated[str, typer.Option("--attention", rich_help_panel=MODEL, help="sdpa, flash_attention_2, eager.")]
Revision = Annotated[
    str | None, typer.Option("--revision", rich_help_panel=MODEL, help="Branch, tag or commit of a hub checkpoint.", show_default=False)
]

SOURCES = (
    "coco (local or streamed), a directory of images, an instances*.json; offline: scenes, generated, grey, noise, colours, mean:SOURCE."
)
Data = Annotated[str, typer.Option("--data", "-d", rich_help_panel=DATA, autocompletion=complete.sources, help=f"Images: {SOURCES}")]
Seed = Annotated[int, typer.Option("--seed", min=0, rich_help_panel=DATA, help="Random seed.")]

Layers = Annotated[
    str | None,
    typer.Option(
        "--layers", "--layer", metavar="1,4|0-7|all", rich_help_panel=DATA,
        help="Decoder layers whose attention is used, counted from 0: layer K − 1 for a method that acts at K.",
    ),
]  # fmt: skip
AllLayers = Annotated[
    str, typer.Option("--layers", metavar="1,4|0-7|all", rich_help_panel=DATA, help="Decoder layers whose attention is read, from 0.")
]
K = Annotated[
    int | None,
    typer.Option(
        "--k", min=0, rich_help_panel=PRUNING, show_default=False,
        help="K of every method inside the language model that has no K of its own (fastv@k=3): tokens are dropped before decoder layer K, "
        "counted from 0. Default: the preset's, or each method's.",
    ),
]  # fmt: skip
METHODS = "none, fastv, fastv+prior, d2pruner@alpha=0.5@k=3+prior, d2pruner@preset=localization"
Methods = Annotated[
    str,
    typer.Option(
        "--pruner",
        "-p",
        rich_help_panel=PRUNING,
        autocompletion=complete.pruners,
        help=f"Methods, comma-separated (biaskit pruners list): {METHODS}.",
    ),
]
Retention = Annotated[
    float, typer.Option("--retention", "-r", metavar="SHARE", rich_help_panel=PRUNING, help="Share of visual tokens kept.")
]
Retentions = Annotated[
    str, typer.Option("--retention", "-r", metavar="SHARES", rich_help_panel=PRUNING, help="Shares of visual tokens kept: 0.5,0.25,1/9.")
]

BatchSize = Annotated[
    int | None,
    typer.Option("--batch-size", min=1, rich_help_panel=RUNNING, help="Images or questions per forward pass. Default: by device."),
]
Workers = Annotated[
    int | None, typer.Option("--workers", min=0, rich_help_panel=RUNNING, help="Preprocessing processes. Default: by cores and device.")
]

Force = Annotated[bool, typer.Option("--force", rich_help_panel=RESULT, help="Overwrite existing output.")]
AsJson = Annotated[bool, typer.Option("--json", rich_help_panel=RESULT, help="Print JSON on stdout.")]

WIDTH_HEIGHT, ROWS_COLS, CHANNELS_LAYERS = "WIDTHxHEIGHT", "ROWSxCOLS", "CHANNELSxLAYERS"


def read_pair(text: str, form: str, option: str) -> tuple[int, int]:
    """Read two numbers from 1 with an x between them, in the order in which `form` names them."""
    first, _, second = text.lower().partition("x")
    if not all(number.isascii() and number.isdecimal() and len(number) < 7 and int(number) for number in (first, second)):
        example = {WIDTH_HEIGHT: "640x480", ROWS_COLS: "24x24"}.get(form, "512x16")
        raise typer.BadParameter(f"{text!r} is not {form}, such as {example}", param_hint=option)
    return int(first), int(second)


def read_layers_option(text: str | None) -> tuple[int, ...] | Literal["all"] | None:
    """Read `1,4`, `0-7`, `all`."""
    from biaskit.errors import BiaskitError
    from biaskit.prior.layers import read_layers

    try:
        return read_layers(text)
    except BiaskitError as error:
        raise typer.BadParameter(f"{text!r}: {error.hint}", param_hint="--layers") from None


def read_pairs(words: list[str], option: str) -> dict[str, Any]:
    """Read KEY=VALUE of a repeated option; a value that is valid JSON (0.5, true, null) is read as JSON, others as text."""
    from biaskit.pruners.notation import read_value

    found: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise typer.BadParameter(f"{word!r}: write NAME=VALUE", param_hint=option)
        found[name] = read_value(value)
    return found


Scale = Annotated[
    Literal["panel", "shared"] | None,
    typer.Option(
        "--scale", rich_help_panel=RESULT, show_default=False,
        help="Colour scale of a figure: panel, one per map; shared, one for all. Default: panel up to six maps.",
    ),
]  # fmt: skip
Cmap = Annotated[
    str | None,
    typer.Option(
        "--cmap",
        rich_help_panel=RESULT,
        show_default=False,
        help="Colour map of a figure, by matplotlib's name. Default: vlag, blue to red.",
    ),
]
OutFile = Annotated[Path | None, typer.Option("--out", "-o", rich_help_panel=RESULT, help="File to write.", show_default=False)]
