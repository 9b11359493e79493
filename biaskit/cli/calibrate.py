"""`biaskit calibrate`: from images and a model to a prior on disk."""

from __future__ import annotations

import json
import os
import sys
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from biaskit.cli.processing import Conversation, DeviceMap, ImageMode, MaxPixels, MaxTiles, MinPixels, choices

if TYPE_CHECKING:
    from biaskit.families.checkpoints.load import Loaded
    from biaskit.prior.value import Prior


def calibrate(
    model: Annotated[str, typer.Option("--model", "-m", help="Short name (biaskit models list), hub id, or checkpoint directory.")],
    data: Annotated[
        str, typer.Option("--data", "-d", help="coco (local or streamed), a directory of images, an instances*.json, or generated.")
    ] = "coco",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The prior; by default MODEL.safetensors here.")] = None,
    samples: Annotated[
        int | None, typer.Option("--samples", "-n", min=1, help="Images. (default: 1000, or all of a smaller source)")
    ] = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option(
            "--prompt",
            help="Text, a file with a prompt a line, or task:NAME (task:refcoco, task:scenes-where, …); may be repeated. All are cycled "
            'over the images. (default: "Please describe the provided image.")',
        ),
    ] = None,
    layers: Annotated[
        str | None, typer.Option(help="0-based decoder layers, such as 1,4 or 0-7, or all. (default: those the presets need)")
    ] = None,
    heads: Annotated[bool, typer.Option("--heads", help="Also keep each head's mean.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of the choice of images.")] = 0,
    coco_root: Annotated[
        Path | None, typer.Option(help="Local COCO: annotations/ and val2017/ or val2017.zip. (default: $BIASKIT_COCO)")
    ] = None,
    split: Annotated[str, typer.Option(help="Which part of COCO.")] = "val2017",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    device_map: DeviceMap = None,
    dtype: Annotated[str, typer.Option(help="auto, bfloat16, float16, float32.")] = "auto",
    attention: Annotated[str, typer.Option(help="sdpa, flash_attention_2, eager.")] = "sdpa",
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub checkpoint.")] = None,
    min_pixels: MinPixels = None,
    max_pixels: MaxPixels = None,
    max_tiles: MaxTiles = None,
    image_mode: ImageMode = None,
    conversation: Conversation = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Images a forward pass. (default: 8 on a GPU, 2 on a CPU)")] = None,
    workers: Annotated[int | None, typer.Option(min=0, help="Preprocessing processes. (default: from the cores)")] = None,
    max_skips: Annotated[int | None, typer.Option(min=0, help="Give up after so many unusable images. (default: n/4, at least 10)")] = None,
    save_every: Annotated[float, typer.Option(min=0.0, help="Seconds between writes of the state.")] = 10.0,
    restart: Annotated[bool, typer.Option("--restart", help="Throw an unfinished run away.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the prior.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Report as JSON on stdout.")] = False,
) -> None:
    """Average the last prompt token's attention over many images, and store it as a prior.

    Can be stopped at any moment: the same command goes on where it was, with any number of processes. Under torchrun the images are
    shared out over them, and the prior has the same bytes: torchrun --standalone --nproc_per_node 8 -m biaskit calibrate …
    """
    from biaskit.errors import CalibrationError
    from biaskit.families.checkpoints.catalog import resolve
    from biaskit.files import check_writable

    place = resolve(model)
    target = out or Path(f"{model if not place.local and '/' not in model else place.name.split('/')[-1]}.safetensors")
    check_writable(target)
    partial = target.with_name(f"{target.name}.partial")
    if target.exists() and not force and not list(target.parent.glob(f"{escape(partial.name)}*")):
        raise CalibrationError(f"{target} exists", "choose another --out, or overwrite it with --force")
    wanted = chosen_layers(layers)

    from biaskit.calibration.prompts import read_prompts

    read_prompts(prompt or [])  # refuses what cannot be read before anything is loaded

    from biaskit.images import open_source

    source = open_source(data, coco_root=coco_root, split=split, n=samples, seed=seed)
    say(f"data {data}: {len(source)} images")

    from biaskit.calibration.run import calibrate as run
    from biaskit.families.checkpoints.load import load_model

    chosen = choices(min_pixels, max_pixels, max_tiles, image_mode, conversation)
    loaded = load_model(
        model, device=device, device_map=device_map, dtype=dtype, attention=attention, revision=revision, say=say, layers=wanted, **chosen
    )
    if list(target.parent.glob(f"{escape(partial.name)}*")) and not restart:
        say(f"going on from {partial}")
    try:
        prior = run(
            loaded, source, out=target, progress=True, samples=samples, prompts=prompt or [], layers=wanted, per_head=heads,
            seed=seed, batch_size=batch_size, workers=workers, max_skips=max_skips, save_every=save_every, force=force, restart=restart,
        )  # fmt: skip
    except KeyboardInterrupt:
        say(f"stopped; nothing is lost: the same command goes on from {partial}")
        raise typer.Exit(130) from None
    _summary(prior, target, loaded, as_json)


def say(line: str) -> None:
    """Tell the user what is happening, on stderr; of several processes (torchrun) the first one does."""
    if os.environ.get("RANK", "0") == "0":
        print(line, file=sys.stderr, flush=True)


def chosen_layers(text: str | None) -> tuple[int, ...] | str | None:
    """Read `1,4`, `0-7`, `all`."""
    from biaskit.errors import BiaskitError
    from biaskit.prior.layers import read_layers

    try:
        return read_layers(text)
    except BiaskitError as error:
        raise typer.BadParameter(f"{text!r}: {error.hint}", param_hint="--layers") from None


def _summary(prior: Prior, target: Path, loaded: Loaded, as_json: bool) -> None:
    from biaskit.prior.bias.report import report

    if os.environ.get("RANK", "0") != "0":
        return
    found = report(prior)
    if as_json:
        facts = {"prior": str(target), "n_images": prior.n_images, "n_skipped": int(prior.meta["n_skipped"]), "model": loaded.name}
        print(json.dumps({**facts, "bias": found.to_json()}, indent=2))
        return
    print(f"{target}: {prior.n_images} images, {prior.meta['n_skipped']} skipped")
    for layer in found.layers:
        print(f"  layer {layer.layer} (K={layer.layer + 1}), {layer.plane}: {layer.verdict}. {layer.why}")
    print(f"next: biaskit heatmap {target}")
