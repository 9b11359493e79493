"""What is measured: methods by name, and prompts of a given size with generated images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from biaskit.bench.pictures import Pictures
from biaskit.calibration.prompts import PROMPT
from biaskit.device import cast_inputs
from biaskit.errors import BiaskitError
from biaskit.families import Prepared
from biaskit.families.checkpoints.decoder import decoder_config
from biaskit.families.checkpoints.device import input_device
from biaskit.families.checkpoints.flops import Dims
from biaskit.families.checkpoints.load import Loaded
from biaskit.prior.value import Prior, flat_prior
from biaskit.pruners import Pruner
from biaskit.pruners.notation import NONE, Method, build, has, parse_method, preset_depth
from biaskit.pruners.schedule import ALPHAS, Schedule


@dataclass(frozen=True)
class Workload:
    """A method at one retention; no pruner is the stock model."""

    name: str
    retention: float
    pruner: Pruner | None = None
    prior: Prior | None = None

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers before which it drops tokens."""
        return () if self.pruner is None else tuple(stage.layer for stage in self.pruner.stages())

    def visual(self, n_visual: int) -> list[tuple[int, int]]:
        """Return (first layer, visual tokens) for `biaskit.families.checkpoints.flops`."""
        found = {0: n_visual}
        for stage in () if self.pruner is None else self.pruner.stages():
            found[stage.layer] = stage.tokens(n_visual)
        return sorted(found.items())


def cells(loaded: Loaded, names: Sequence[str], retentions: Sequence[float], k: int | None = None) -> list[Workload]:
    """Return every method at every retention, the stock model once and first.

    Args:
        loaded: the model.
        names: `none`, or methods in the notation of `biaskit.pruners.notation`, +prior to debias; the prior is flat, and methods that
            require one get it anyway, as methods get an even schedule that require one.
        retentions: shares kept. k: K of the methods that act inside the language model, instead of their own or the presets'.

    Raises:
        BiaskitError: an unknown name, or a setting that the method or the model does not support.
    """
    depth = int(decoder_config(loaded.model).num_hidden_layers)
    model_type = loaded.model.config.model_type
    methods = [parse_method(name) for name in names]
    chosen = preset_depth(methods, None, model_type) if k is None else k
    found, sizes = [Workload(NONE, 1.0)], loaded.family.canonical(loaded.model.config)
    for method in methods:
        for retention in retentions if method.name != NONE else ():
            pruner = build(_scheduled(method, loaded), k=chosen, model_type=model_type, retention=retention)
            if method.prior and not pruner.debiases:
                raise BiaskitError(f"{method.label}: {type(pruner).title} does not debias attention", f"remove +{method.prior}")
            read = pruner.prior_layers()
            if max(read, default=0) >= depth - 1:
                acts = pruner.stages()[-1].layer
                raise BiaskitError(f"{method.label} acts before layer {acts} of {depth}", "give a smaller --k, or a deeper model")
            wanted = method.prior is not None or (pruner.prior == "required" and pruner.debiases)
            flat = flat_prior(sizes, read, {"model": loaded.name, "model_type": model_type}) if read and wanted else None
            found.append(Workload(method.label, retention, pruner, flat))
    return found


def _scheduled(method: Method, loaded: Loaded) -> Method:
    """Return the method with an even schedule, if it needs a schedule and none is given."""
    if method.name == NONE or not has(method.name, "schedule") or "schedule" in method.settings:
        return method
    return replace(method, settings={**method.settings, "schedule": even_schedule(loaded)})


def even_schedule(loaded: Loaded) -> Schedule:
    """Return a schedule that deletes equally many visual tokens at each of the L layers: a share of α / L of them.

    Decisions take the time that they take with a calibrated schedule that has as many stages.

    Example:
        >>> from biaskit import load_model
        >>> even_schedule(load_model("demo")).counts(63, 144)  # α = 1/2, 9 layers
        [136, 128, 120, 112, 104, 96, 88, 80, 72]
    """
    size = dims(loaded)
    share = np.tile(np.array(ALPHAS)[:, None] / size.layers, size.layers)
    entering = 1 - np.cumsum(share, 1) + share
    facts = {"model_type": loaded.model.config.model_type, "hidden_size": str(size.hidden), "intermediate_size": str(size.inner)}
    return Schedule(share, _TYPICAL * entering, (_TYPICAL * entering) ** 2, facts)


_TYPICAL = 1000


def dims(loaded: Loaded) -> Dims:
    """Return the sizes of the language model."""
    config = decoder_config(loaded.model)
    heads = int(config.num_attention_heads)
    return Dims(
        int(config.num_hidden_layers), int(config.hidden_size), int(config.intermediate_size), heads,
        int(getattr(config, "num_key_value_heads", None) or heads),
        int(getattr(config, "head_dim", None) or config.hidden_size // heads), int(config.vocab_size),
    )  # fmt: skip


def prompts(
    loaded: Loaded, batch: int, *, image_size: tuple[int, int] | None = None, images: int = 1, text_tokens: int | None = None
) -> Prepared:
    """Return a batch of prompts with generated images.

    Args:
        loaded: the model. batch: B samples.
        image_size: (rows, cols) in pixels; by default that of the generated images. images: per prompt.
        text_tokens: t, tokens of the whole prompt that are not visual; by default those of the neutral prompt.

    Raises:
        BiaskitError: the chat template alone is longer than `text_tokens`.
    """
    source = Pictures(batch * images)
    pictures = [[source.load(sample * images + image) for image in range(images)] for sample in range(batch)]
    if image_size is not None:
        pictures = [[picture.resize((image_size[1], image_size[0])) for picture in mine] for mine in pictures]

    def prepare(samples: int, text: str) -> Prepared:
        return loaded.family.prepare(loaded.processor, loaded.model.config, pictures[:samples], [text] * samples)

    text = PROMPT
    if text_tokens is not None:
        shortest = n_text(prepare(1, "a"))
        if shortest > text_tokens:
            raise BiaskitError(f"{text_tokens} prompt tokens", f"this model's chat template alone takes {shortest} with one letter of text")
        text = "a"
        while (missing := text_tokens - n_text(prepare(1, text))) > 0:
            text += " a" * (missing // 2) + "a" * (missing % 2)
    return prepare(batch, text)


def n_text(prepared: Prepared) -> int:
    """Return the text tokens of the longest prompt of a batch."""
    counts = prepared.inputs["attention_mask"].sum(1).tolist()
    return max(int(count) - len(layout) for count, layout in zip(counts, prepared.layouts, strict=True))


def on_device(loaded: Loaded, prepared: Prepared) -> Mapping[str, Tensor]:
    """Return the inputs on the model's device, pixels in its dtype."""
    return cast_inputs(prepared.inputs, loaded.model.dtype, input_device(loaded.model))
