"""`biaskit prune`: one image and prompt, answered with and without pruning, and where the kept tokens lie."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from biaskit.cli.processing import (
    Conversation,
    DeviceMap,
    Generation,
    ImageMode,
    MaxPixels,
    MaxTiles,
    MinPixels,
    choices,
    generation_of,
    pairs,
)

if TYPE_CHECKING:
    from biaskit.families import Prepared
    from biaskit.families.checkpoints.load import Loaded
    from biaskit.prior.value import Prior
    from biaskit.pruners import Pruner


def prune(
    model: Annotated[str, typer.Option("--model", "-m", help="Short name (biaskit models list), hub id, or checkpoint directory.")],
    image: Annotated[Path, typer.Option("--image", "-i", help="The picture.")],
    prompt: Annotated[str, typer.Option("--prompt", "-p", help="What to ask.")] = "Please describe the provided image.",
    pruner: Annotated[str, typer.Option("--pruner", help="Method (biaskit pruners list).")] = "d2pruner",
    retention: Annotated[float | None, typer.Option("--retention", "-r", help="Share of visual tokens kept. (default: 0.1)")] = None,
    budget: Annotated[int | None, typer.Option(min=1, help="Number of visual tokens kept; instead of --retention.")] = None,
    layer: Annotated[int | None, typer.Option(min=0, help="K: drop before this decoder layer. (default: the method's)")] = None,
    preset: Annotated[str | None, typer.Option(help="A set of the method's parameters (biaskit pruners show).")] = None,
    parameters: Annotated[list[str] | None, typer.Option("--set", help="A parameter of the method, NAME=VALUE; may be repeated.")] = None,
    prior: Annotated[str | None, typer.Option(help="File or name of a prior, for the methods that read attention.")] = None,
    compare: Annotated[str | None, typer.Option(help="Further methods with their defaults, such as fastv,fastv+prior,divprune.")] = None,
    overlay: Annotated[Path | None, typer.Option(help="Figure of the kept tokens, one panel a method: .png, .pdf or .svg.")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Length of the answers.")] = 64,
    seed: Annotated[int, typer.Option(help="Of methods that draw random numbers.")] = 0,
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
    generation: Generation = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the figure.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Report as JSON on stdout.")] = False,
) -> None:
    """Answer a prompt about an image with all visual tokens and with those a method keeps, and draw which they are."""
    if retention is not None and budget is not None:
        raise typer.BadParameter("give --retention or --budget, not both", param_hint="--budget")
    share: dict[str, Any] = {"budget": budget} if budget is not None else {"retention": 0.1 if retention is None else retention}
    depth: dict[str, Any] = {} if layer is None else {"layer": layer}
    given, decoding = pairs(parameters or [], "--set"), generation_of(generation)
    names = [name.strip() for name in (compare or "").split(",") if name.strip()]
    if prior is None and any(name.endswith("+prior") for name in names):
        raise typer.BadParameter(f"{compare}: +prior needs --prior", param_hint="--compare")
    if overlay is not None:
        from biaskit.figures.style import check_out

        check_out(overlay, force)

    from biaskit.cli.calibrate import say
    from biaskit.engine.greedy import generation_in_force, greedy_settings, put_aside
    from biaskit.families.checkpoints.load import load_model, read_checkpoint
    from biaskit.images.decode import decode
    from biaskit.prior.store import load_prior
    from biaskit.pruners import get_pruner

    picture = decode(_bytes(image), image.name)
    bias = None if prior is None else load_prior(prior)
    chosen = choices(min_pixels, max_pixels, max_tiles, image_mode, conversation)
    _, _, config, _ = read_checkpoint(model, revision, chosen)
    first = get_pruner(pruner, preset=preset, model_type=config.model_type, **{**share, **depth, **given})
    runs = [(pruner, first, bias)]
    for name in names:
        key = name.removesuffix("+prior").strip()
        method = get_pruner(key, **share)
        if layer is not None and method.layer:  # compare at the same depth
            method = get_pruner(key, **share, **depth)
        runs.append((name, method, bias if name != key or method.prior == "required" else None))
    for name, method, used in runs:
        _check(name, method, used, config)
    loaded = load_model(model, device=device, device_map=device_map, dtype=dtype, attention=attention, revision=revision, say=say, **chosen)
    if bias is not None:
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            bias.check_model(config.model_type, loaded.revision, loaded.name, loaded.processor_settings)
        for one in found:
            say(f"note: {one.message}")
    prepared = loaded.family.prepare(loaded.processor, loaded.model.config, [[picture]], [prompt])
    whole = get_pruner("random", retention=1.0, layer=0)
    settings = greedy_settings(loaded.model, decoding)
    unused = put_aside(loaded.model, settings)
    if unused is not None:
        say(f"note: {unused}")
    length = {**settings, "max_new_tokens": max_new_tokens}
    rows = [_answer(loaded, prepared, whole, None, length, seed) | {"name": "none", "method": "none", "parameters": {}}]
    for name, method, used in runs:
        rows.append({"name": name, **_answer(loaded, prepared, method, used, length, seed)})
    if overlay is not None:
        from biaskit.figures.overlay import Kept
        from biaskit.figures.overlay import overlay as draw

        panels = [Kept(row["method"], row["kept"], row["answer"]) for row in rows[1:]]
        draw(picture, prepared.layouts[0], panels, out=overlay, title=prompt, force=force)
    asked = {"model": loaded.name, "revision": loaded.revision, "image": image.name, "prompt": prompt, "prior": prior, "seed": seed}
    _show(rows, {**asked, "generation": generation_in_force(loaded.model, settings)}, overlay, as_json)


def _check(name: str, method: Pruner, prior: Prior | None, config: Any) -> None:
    """Refuse what cannot work before any weights are loaded."""
    from biaskit.errors import BiaskitError

    if name.endswith("+prior") and not method.debiases:
        raise BiaskitError(f"{name}: {type(method).title} does not debias attention", "leave +prior away")
    depth = config.get_text_config().num_hidden_layers
    deep = max(stage.layer for stage in method.stages())
    if deep >= depth:
        raise BiaskitError(f"{name} acts before layer {deep}, but the model has layers 0 … {depth - 1}", "choose a smaller --layer")
    method.check_prior(prior)
    if prior is not None:
        prior.check_model(config.model_type)


def _bytes(path: Path) -> bytes:
    from biaskit.errors import BiaskitError

    try:
        return path.read_bytes()
    except OSError as error:
        raise BiaskitError(f"cannot read {path}: {error.strerror}", "give the path of an image file") from error


def _answer(loaded: Loaded, prepared: Prepared, pruner: Pruner, prior: Prior | None, settings: dict[str, Any], seed: int) -> dict[str, Any]:
    """Generate with one method; return its answer and accounting."""
    import torch

    from biaskit.cli.calibrate import say
    from biaskit.engine.prune import prune as pruned
    from biaskit.families.checkpoints.device import input_device

    device = input_device(loaded.model)
    inputs = {
        key: value.to(device, loaded.model.dtype if value.is_floating_point() else value.dtype) for key, value in prepared.inputs.items()
    }
    used = prior if pruner.debiases else None
    debiased = ", debiased" if used is not None and pruner.prior == "optional" else ""
    with torch.inference_mode(), pruned(loaded.model, pruner, prior=used, seed=seed, say=say) as pruning:
        output = loaded.model.generate(**inputs, **settings)
    sample = pruning.samples[0]  # one image; beams have one row each
    fresh = output[0, prepared.inputs["input_ids"].shape[1] :]
    return {
        "method": type(pruner).title + debiased,
        "parameters": {p.name: getattr(pruner, p.name) for p in type(pruner).parameters()},
        "debiased": used is not None,
        "answer": loaded.processor.tokenizer.decode(fresh, skip_special_tokens=True).strip(),
        "N": sample.n_visual,
        "n": len(sample),
        "mean_tokens": sample.mean_tokens,
        "cache_bytes": sample.cache_bytes,
        "kept": sample.indices.cpu().numpy(),
        "info": dict(sample.info),
    }


def _show(rows: list[dict[str, Any]], asked: dict[str, Any], figure: Path | None, as_json: bool) -> None:
    if as_json:
        plain = [{**row, "kept": row["kept"].tolist()} for row in rows]
        print(json.dumps({**asked, "overlay": None if figure is None else str(figure), "runs": plain}, indent=2, default=str))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("method", "N", "n", "layer mean", "cache MB", "answer", box=None, pad_edge=False)
    for row in rows:
        table.add_row(
            row["method"], str(row["N"]), str(row["n"]), f"{row['mean_tokens']:.1f}", f"{row['cache_bytes'] / 1e6:.2f}", row["answer"]
        )
    Console().print(table, markup=False)
    if figure is not None:
        print(figure)
