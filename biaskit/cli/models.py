"""`biaskit models`: supported models, and where a checkpoint's visual tokens lie."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from biaskit.cli import complete
from biaskit.cli.checkpoint import Files, with_checkpoint
from biaskit.cli.command import App
from biaskit.cli.console import echo, echo_json, echo_table
from biaskit.cli.models_check import check
from biaskit.cli.options import WIDTH_HEIGHT, AsJson, read_pair

app = App(help="Model families and checkpoints.", no_args_is_help=True)

app.command("check")(check)


@app.command("list")
def show_list(as_json: AsJson = False) -> None:
    """List the short names and the supported model types."""
    from biaskit.families.checkpoints.catalog import CHECKPOINTS, EMBEDDED
    from biaskit.families.checkpoints.part import family_of, supported_types

    if as_json:
        echo_json({
            "checkpoints": [{"name": name, **vars(entry)} for name, entry in CHECKPOINTS.items()],
            "embedded": list(EMBEDDED),
            "model_types": {name: family.title for name in supported_types() if (family := family_of(name))},
        })  # fmt: skip
        return
    echo_table(("name", "hub id", "model type"), [(name, entry.hub_id, entry.model_type) for name, entry in CHECKPOINTS.items()])
    for note in {entry.note: None for entry in CHECKPOINTS.values() if entry.note}:
        names = ", ".join(name for name, entry in CHECKPOINTS.items() if entry.note == note)
        echo(f"{names}: {note}.")
    echo(f"Embedded in the package, tiny, trained on drawn scenes only: {', '.join(EMBEDDED)}.")
    echo(f"Any hub id or directory of these model types works too: {', '.join(supported_types())}.")


@app.command()
@with_checkpoint
def inspect(
    *,
    model: Annotated[str, typer.Argument(autocompletion=complete.models, help="Short name, hub id, or checkpoint directory.")],
    image_size: Annotated[str, typer.Option("--image-size", metavar=WIDTH_HEIGHT, help="Size of the picture in pixels.")] = "640x480",
    checkpoint: Files,
    as_json: AsJson = False,
) -> None:
    """Show a checkpoint's decoder, preset layers, and where the visual tokens of an image sit. Loads no weights."""
    width, height = read_pair(image_size, WIDTH_HEIGHT, "--image-size")
    from PIL import Image

    place, family, config, processor = checkpoint.read(model)
    prepared = family.prepare(processor, config, [[Image.new("RGB", (width, height))]], ["Describe the image."])
    layout, text = prepared.layouts[0], config.text_config
    planes: list[dict[str, Any]] = [
        {"plane": plane.name, "rows": plane.rows, "cols": plane.cols, "box": plane.box, "canonical": family.canonical(config)[plane.name]}
        for plane in layout.planes
    ]
    facts = {
        "model": place.name,
        "family": family.title,
        "model_type": config.model_type,
        "decoder_layers": text.num_hidden_layers,
        "heads": text.num_attention_heads,
        "hidden_size": text.hidden_size,
        "preset_layers": list(family.default_layers(config)),
        "image": {"cols": width, "rows": height},
        "visual_tokens": len(layout),
        "prompt_tokens": int(prepared.inputs["input_ids"].shape[1]),
        "planes": planes,
    }
    if as_json:
        echo_json(facts)
        return
    if place.note:
        echo(f"note: {place.note}")
    echo(f"{facts['model']}: {family.title} ({config.model_type})")
    echo(f"decoder: {text.num_hidden_layers} layers, {text.num_attention_heads} heads, hidden size {text.hidden_size}")
    echo(f"layers the presets read: {', '.join(map(str, family.default_layers(config)))}")
    echo(f"a {width}×{height} image: {len(layout)} visual tokens of {facts['prompt_tokens']} in the prompt")
    for plane in planes:
        rows, cols = plane["canonical"]
        where = "no part of the image" if plane["box"] is None else "x {:.3f}–{:.3f}, y {:.3f}–{:.3f}".format(
            plane["box"][0], plane["box"][2], plane["box"][1], plane["box"][3]
        )  # fmt: skip
        echo(f"  {plane['plane']}: {plane['rows']} × {plane['cols']} (rows × cols), covers {where}; stored as {rows} × {cols}")
