"""`biaskit view`: priors, and what methods keep of a picture, in one page for the browser."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from biaskit.cli.checkpoint import Checkpoint, with_checkpoint
from biaskit.cli.console import echo, notes
from biaskit.cli.options import (
    DATA,
    RESULT,
    Force,
    K,
    Layers,
    LookingModel,
    Methods,
    Retentions,
    Seed,
    read_layers_option,
)

if TYPE_CHECKING:
    from PIL.Image import Image

    from biaskit.families.checkpoints.load import Loaded
    from biaskit.figures.viewer.contents import Sample
    from biaskit.prior.value import Prior

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Stops of the slider of τ."""


@with_checkpoint
def view(
    *,
    priors: Annotated[list[str], typer.Argument(metavar="PRIOR", help="Files, or names of priors; NAME=FILE calls one NAME.")],
    model: LookingModel = None,
    image: Annotated[Path | None, typer.Option("--image", "-i", rich_help_panel=DATA, help="The picture beneath the maps.")] = None,
    prompt: Annotated[str, typer.Option("--prompt", rich_help_panel=DATA, help="What to ask.")] = "Please describe the provided image.",
    layers: Layers = "all",
    pruner: Methods = "fastv,fastv+prior,d2pruner+prior,divprune",
    retention: Retentions = "0.5,1/3,0.25,1/6,1/9,0.05,0.02",
    k: K = None,
    out: Annotated[Path, typer.Option("--out", "-o", rich_help_panel=RESULT, help="The page.")] = Path("view.html"),
    seed: Seed = 0,
    checkpoint: Checkpoint,
    force: Force = False,
) -> None:
    """Write a page to look at priors with: one HTML file that needs neither a server nor the network.

    Choose prior, layer, head and plane; lay the map over a picture; see two priors beside each other with their ratio. With --model and
    --image, slide retention and strength τ and watch which tokens each method keeps; +prior is the first prior. Methods inside the
    language model act at the K of the layer that is shown, unless --k or @k= says otherwise.
    """
    wanted = read_layers_option(layers)
    if model is not None and image is None:
        raise typer.BadParameter("a checkpoint is asked about a picture: give --image too", param_hint="--model")

    from biaskit.cli.prune import read_picture
    from biaskit.figures.viewer.contents import Contents
    from biaskit.figures.viewer.page import html
    from biaskit.files import check_target, write_file
    from biaskit.images.decode import decode
    from biaskit.prior.store import load_prior

    check_target(out, force)
    named = [_named(text) for text in priors]
    if len({name for name, _ in named}) < len(named):
        raise typer.BadParameter("two priors have one name: write NAME=FILE", param_hint="PRIOR")
    loaded = {name: load_prior(source) for name, source in named}
    chosen = None if wanted is None or wanted == "all" else list(wanted)
    picture = None if image is None else decode(read_picture(image), image.name)
    sample = None
    if model is not None and picture is not None:
        sample = _ask(checkpoint.load(model), picture, prompt, loaded, chosen, (pruner, retention, k), seed)
    title = f"Positional bias of {sample.model}" if sample is not None else "Positional bias"
    contents = Contents(loaded, chosen, picture, "" if image is None else image.name, sample, title)
    write_file(out, html(contents).encode(), force)
    echo(str(out))


def _named(text: str) -> tuple[str, str]:
    """Return what a prior is called, and where it is."""
    name, equals, source = text.partition("=")
    if equals and name and "/" not in name:
        return name, source
    return Path(text).name.removesuffix(".safetensors"), text


def _ask(
    loaded: Loaded, picture: Image, prompt: str, priors: dict[str, Prior], layers: list[int] | None, methods: tuple[str, str, int | None],
    seed: int,
) -> Sample:  # fmt: skip
    """Run the model on the picture, and ask every method at every setting."""
    from biaskit.display import Bars, wants_progress
    from biaskit.engine.survivors import survivors
    from biaskit.figures.methods import look_of
    from biaskit.figures.viewer.contents import Choices, Sample
    from biaskit.validation.ask.arguments import read_shares, words

    first = next(iter(priors.values()))
    known = {"prior": first, **priors}
    with notes():
        first.check_model(loaded.model.config.model_type, loaded.revision, loaded.name, loaded.processor_settings)
    shares = sorted(read_shares(methods[1]), reverse=True)
    prepared = loaded.family.prepare(loaded.processor, loaded.model.config, [[picture]], [prompt])
    asked = _contenders(words(methods[0]), known, list(first.layers) if layers is None else layers, methods[2], loaded.model.config)
    with Bars(shown=wants_progress(None)) as bars:
        kept, attention = survivors(
            loaded, prepared.inputs, [one for _, _, one in asked], shares, STRENGTHS, seed=seed,
            report=lambda done, total: bars.show("asking the methods", done, total),
        )  # fmt: skip
    chosen: dict[str, dict[tuple[int | None, float, float | None], Any]] = {}
    for (label, depth, _), sets in zip(asked, kept, strict=True):
        chosen.setdefault(label, {}).update({(depth, share, tau): indices for (share, tau), indices in sets.items()})
    choices_of = [Choices(label, label, look_of(label.partition("@")[0].partition("+")[0]).colour, sets) for label, sets in chosen.items()]
    return Sample(loaded.name, prompt, prepared.layouts[0], attention, choices_of, shares, STRENGTHS)


def _contenders(labels: list[str], priors: dict[str, Prior], layers: list[int], k: int | None, config: Any) -> list[tuple[Any, ...]]:
    """Return (label, K or None where it is always the same, contender) for every method and K.

    Raises:
        BiaskitError: a method does not fit the model or the priors.
    """
    from biaskit.engine.survivors import Contender
    from biaskit.pruners.notation import NONE, build, check_method, has, parse_method, prior_of

    depth = config.get_text_config().num_hidden_layers
    found: list[tuple[Any, ...]] = []
    for label in labels:
        method = parse_method(label)
        if method.name == NONE:
            continue
        moves = k is None and has(method.name, "layer") and "layer" not in method.settings and "preset" not in method.settings
        depths: list[int | None] = [layer + 1 for layer in layers if layer + 1 < depth] if moves else [k]
        for at in depths:
            made = build(method, k=at, model_type=config.model_type, retention=0.5)
            name = prior_of(method, made, priors)
            used = None if name is None or not made.debiases else priors[name]
            if moves and at is not None and used is not None and at - 1 not in used.layers:
                continue
            check_method(method.label, made, used, config)
            found.append((method.label, at if moves else None, Contender(method.label, made, used)))
    return found
