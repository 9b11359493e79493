"""`biaskit prune`: one image and prompt, answered with and without pruning, and where the kept tokens lie."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from biaskit.cli import complete
from biaskit.cli.checkpoint import Checkpoint, Generation, generation_of, with_checkpoint
from biaskit.cli.console import echo, echo_json, echo_table, notes, say
from biaskit.cli.options import (
    DATA,
    METHODS,
    PRUNING,
    RESULT,
    AsJson,
    K,
    Model,
    Seed,
    read_pairs,
)

if TYPE_CHECKING:
    from biaskit.families import Prepared
    from biaskit.families.checkpoints.load import Loaded
    from biaskit.prior.value import Prior
    from biaskit.pruners import Pruner


@with_checkpoint
def prune(
    *,
    model: Model,
    image: Annotated[Path, typer.Option("--image", "-i", rich_help_panel=DATA, help="The picture.")],
    prompt: Annotated[str, typer.Option("--prompt", rich_help_panel=DATA, help="What to ask.")] = "Please describe the provided image.",
    pruner: Annotated[
        str,
        typer.Option(
            "--pruner", "-p", rich_help_panel=PRUNING, autocompletion=complete.pruners, help=f"Method (biaskit pruners list): {METHODS}."
        ),
    ] = "d2pruner",
    retention: Annotated[
        float | None,
        typer.Option("--retention", "-r", metavar="SHARE", rich_help_panel=PRUNING, help="Share of visual tokens kept. (default: 0.1)"),
    ] = None,
    budget: Annotated[
        int | None, typer.Option(min=1, rich_help_panel=PRUNING, help="Number of visual tokens kept; instead of --retention.")
    ] = None,
    k: K = None,
    preset: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=PRUNING, help="Preset of all methods that have it (biaskit pruners show); its K applies to all methods."
        ),
    ] = None,
    parameters: Annotated[
        list[str] | None,
        typer.Option("--set", rich_help_panel=PRUNING, help="A parameter of the method of --pruner, NAME=VALUE; may be repeated."),
    ] = None,
    prior: Annotated[
        list[str] | None,
        typer.Option(
            rich_help_panel=PRUNING,
            autocompletion=complete.priors,
            help="File or name of a prior, for +prior; NAME=FILE for +NAME; may be repeated.",
        ),
    ] = None,
    compare: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=PRUNING,
            help="Further methods, such as fastv,fastv+prior,divprune; all: every method that works with this model.",
        ),
    ] = None,
    overlay: Annotated[
        Path | None, typer.Option(rich_help_panel=RESULT, help="Figure of the kept tokens, one panel per method: .png, .pdf or .svg.")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, rich_help_panel=RESULT, help="Maximum length of the answers, in tokens.")] = 64,
    seed: Seed = 0,
    checkpoint: Checkpoint,
    generation: Generation = None,
    force: Annotated[bool, typer.Option("--force", rich_help_panel=RESULT, help="Overwrite the figure.")] = False,
    as_json: AsJson = False,
) -> None:
    """Answer a prompt about an image with all visual tokens and with those a method keeps, and draw the kept ones.

    All methods act at the same K: that of --k, else that of the preset. A method written with @k= keeps its own; without --k and --preset
    each method acts at the K of its paper. The table lists every K.
    """
    if retention is not None and budget is not None:
        raise typer.BadParameter("give --retention or --budget, not both", param_hint="--budget")
    if any(letter.isspace() for letter in pruner.strip()):
        raise typer.BadParameter(f"{pruner!r} is not a method; the question goes into --prompt", param_hint="--pruner")
    share: dict[str, Any] = {"budget": budget} if budget is not None else {"retention": 0.1 if retention is None else retention}
    decoding = generation_of(generation)
    if overlay is not None:
        from biaskit.figures.style import check_out

        check_out(overlay, force)

    from biaskit.cli.prune_all import all_methods, fits
    from biaskit.engine.greedy import generation_in_force, greedy_settings, put_aside
    from biaskit.images.decode import decode
    from biaskit.pruners import get_pruner
    from biaskit.validation.ask.arguments import read_priors, words

    picture = decode(read_picture(image), image.name)
    _, _, config, _ = checkpoint.read(model)
    further, priors = words(compare or ""), read_priors(prior or [])
    tried = all_methods([pruner, *further], priors, lambda label, held: _runs(label, [], [], held, config, k, preset, share))
    runs = _runs(pruner, parameters or [], [*tried, *further], priors, config, k, preset, share)
    loaded = checkpoint.load(model)
    runs = [run for run in runs if run.label not in tried or fits(run.label, run.pruner, run.prior, loaded)]
    with notes():
        for bias in {id(run.prior): run.prior for run in runs if run.prior is not None}.values():
            bias.check_model(config.model_type, loaded.revision, loaded.name, loaded.processor_settings)
    prepared = loaded.family.prepare(loaded.processor, loaded.model.config, [[picture]], [prompt])
    settings = greedy_settings(loaded.model, decoding)
    unused = put_aside(loaded.model, settings)
    if unused is not None:
        say(f"note: {unused}")
    length = {**settings, "max_new_tokens": max_new_tokens}
    whole = get_pruner("random", retention=1.0, layer=0)
    rows = [_answer(loaded, prepared, whole, None, length, seed) | {"name": "none", "method": "none", "parameters": {}, "k": None}]
    rows += [{"name": run.label, "k": run.depths, **_answer(loaded, prepared, run.pruner, run.prior, length, seed)} for run in runs]
    if overlay is not None:
        from biaskit.figures.overlay import Kept
        from biaskit.figures.overlay import overlay as draw

        panels = []
        for run, row in zip(runs, rows[1:], strict=True):
            box = _answered_box(row["answer"], loaded, prepared, picture.size)
            panels.append(Kept(row["name"], row["kept"], row["answer"], run.depths, _prior_name(run.label, prior or []), box))
        draw(picture, prepared.layouts[0], panels, out=overlay, title=prompt, model=loaded.name, force=force)
    asked = {"model": loaded.name, "revision": loaded.revision, "image": image.name, "prompt": prompt, "prior": prior or [], "seed": seed}
    _show(rows, {**asked, "generation": generation_in_force(loaded.model, settings)}, overlay, as_json)


class _Run(NamedTuple):
    """One method as it is run."""

    label: str
    pruner: Pruner
    prior: Prior | None
    depths: str


def _runs(
    first: str, parameters: list[str], further: list[str], priors: dict[str, Prior], config: Any, k: int | None, preset: str | None,
    share: dict[str, Any],
) -> list[_Run]:  # fmt: skip
    """Read the methods, and raise for those that cannot work before any weights are loaded."""
    from biaskit.errors import BiaskitError
    from biaskit.pruners.notation import NONE, Method, build, check_method, depths, parse_method, preset_depth, prior_of, read_key

    main = parse_method(first)
    given = {read_key(key): value for key, value in read_pairs(parameters, "--set").items()}
    main = Method(main.name, {**main.settings, **given}, main.prior)
    methods = [method for method in (main, *(parse_method(word) for word in further if word != "all")) if method.name != NONE]
    chosen = preset_depth(methods, preset, config.model_type)
    runs = []
    for method in methods:
        method_k = chosen if k is None else k
        made = build(method, k=method_k, preset=preset, model_type=config.model_type, **share)
        name = prior_of(method, made, priors)
        used = None if name is None or not made.debiases else priors[name]
        check_method(method.label, made, used, config)
        runs.append(_Run(replace(method, prior=name).label, made, used, depths(made)))
    unused = set(priors) - {method.label.partition("+")[2] for method in runs}
    if unused:
        name = min(unused)
        raise BiaskitError(f"no method uses the prior {name}", f"add it to a method that debiases: fastv+{name}")
    return runs


def read_picture(path: Path) -> bytes:
    """Return a file's bytes.

    Raises:
        BiaskitError: it cannot be read.
    """
    from biaskit.errors import BiaskitError

    try:
        return path.read_bytes()
    except OSError as error:
        raise BiaskitError(f"cannot read {path}: {error.strerror}", "give the path of an image file") from error


def _answer(loaded: Loaded, prepared: Prepared, pruner: Pruner, prior: Prior | None, settings: dict[str, Any], seed: int) -> dict[str, Any]:
    """Generate with one method; return its answer and accounting."""
    import torch

    from biaskit.device import cast_inputs
    from biaskit.engine.prune import prune as pruned
    from biaskit.families.checkpoints.device import input_device

    inputs = cast_inputs(prepared.inputs, loaded.model.dtype, input_device(loaded.model))
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


def _prior_name(label: str, given: list[str]) -> str:
    """Return what a figure calls the prior of a method: its name, or the file's of one that was given without a name."""
    name = label.partition("+")[2]
    places = [Path(word).name.removesuffix(".safetensors") for word in given if "=" not in word]
    return places[0] if name == "prior" and places else name


def _answered_box(answer: str, loaded: Loaded, prepared: Prepared, size: tuple[int, int]) -> tuple[float, float, float, float] | None:
    """Return the box in an answer, (left, top, right, bottom) as fractions of a picture of (width, height); None without one."""
    from biaskit.families.checkpoints.catalog import short_name
    from biaskit.tasks.boxes import read_box
    from biaskit.validation.ask.questions import see

    seen = see(loaded.family, loaded.model.config, short_name(loaded.name), prepared.layouts[0], size[::-1])
    box = read_box(answer, seen)
    return None if box is None else (box[0] / size[0], box[1] / size[1], box[2] / size[0], box[3] / size[1])


def _show(rows: list[dict[str, Any]], asked: dict[str, Any], figure: Path | None, as_json: bool) -> None:
    if as_json:
        plain = [{**row, "kept": row["kept"].tolist()} for row in rows]
        echo_json({**asked, "overlay": None if figure is None else str(figure), "runs": plain})
        return
    head = ("method", "K", "N", "n", "layer mean", "cache MB", "answer")
    echo_table(head, [
        (r["name"], r["k"] or "–", r["N"], r["n"], f"{r['mean_tokens']:.1f}", f"{r['cache_bytes'] / 1e6:.2f}", r["answer"]) for r in rows
    ])  # fmt: skip
    if figure is not None:
        echo(figure)
