"""What every pruner and every model family must do. Our own tests run these checks over the registries; plug-in authors run them on theirs.

A check raises AssertionError, which says what is wrong.
"""

from __future__ import annotations

import dataclasses
import zlib
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from biaskit.engine.answers import check_keep
from biaskit.engine.prune import prune
from biaskit.errors import ModelError
from biaskit.families import ModelFamily
from biaskit.grid import Layout, PatchIndex, Plane, Tokens, join, raster
from biaskit.prior.value import PlaneStats, Prior
from biaskit.pruners.readings import EMBEDS, NAMES, Reading, check_readings
from biaskit.pruners.signals import Signals
from biaskit.select.keep import Keep

if TYPE_CHECKING:
    from biaskit.pruners.base import Pruner


def sample_layouts() -> dict[str, Layout]:
    """Layouts of made-up samples: one grid, a wide one, two images with text between them, a base view with canvas and newlines."""
    row, col = np.divmod(np.arange(20), 5)
    newline = col == 4
    body = Tokens((Plane("canvas", 4, 4), Plane("newline", 4, 1, None)), newline.astype(np.int64), row, np.where(newline, 0, col))
    parts = {
        "square": [raster(Plane("image", 6, 6))],
        "wide": [raster(Plane("image", 2, 12))],
        "two images": [raster(Plane("image", 4, 4)), raster(Plane("image", 3, 4, image=1))],
        "any-res": [raster(Plane("base", 3, 3)), body],
    }
    return {name: _placed(tokens) for name, tokens in parts.items()}


def _placed(parts: list[Tokens]) -> Layout:
    joined = join(parts)
    gaps = np.repeat(np.arange(len(parts)), [len(part) for part in parts]) * 4
    return Layout(7 + np.arange(len(joined)) + gaps, joined.planes, joined.plane, joined.row, joined.col)


def sample_signals(
    layout: Layout,
    needs: frozenset[Reading] = frozenset(NAMES),
    *,
    layer: int = 2,
    seed: int = 0,
    a_bias: bool = True,
    dtype: torch.dtype = torch.float32,
) -> Signals:
    """Random signals of one sample, only what is in `needs`; the same seed gives the same. `dtype` is that of the model.

    Example:
        >>> from biaskit.signals import ATTENTION, EMBEDS
        >>> seen = sample_signals(sample_layouts()["square"], frozenset({ATTENTION}))
        >>> seen[ATTENTION].shape, EMBEDS in seen
        (torch.Size([36]), False)
    """
    random, n = torch.Generator().manual_seed(seed), len(layout)
    end = int(layout.positions[-1])
    text = torch.tensor([i for i in range(end + 9) if i not in set(layout.positions.tolist())])
    bias = torch.rand(n, generator=random) + 0.2 if a_bias else None
    return Signals(
        layout,
        layer,
        {reading: _made_up(reading, n if reading.tokens == "visual" else len(text), seed, dtype) for reading in needs},
        PatchIndex(np.arange(n)[:, None], (n,)) if any(reading.at == "tower" for reading in needs) else None,
        a_bias=bias,
        generator=torch.Generator().manual_seed(seed),
        prompt_ids=torch.arange(end + 9),
        text_positions=text if any(reading.tokens == "text" for reading in needs) else None,
        final_norm=lambda x: 2 * x.float(),
        project=lambda x: x.to(dtype).reshape(len(x), -1)[:, :_WIDTH] * 2,
    )


_WIDTH = 12
"""Of the rows of a made-up model."""


def _made_up(reading: Reading, n: int, seed: int, dtype: torch.dtype) -> Tensor:
    """A random reading of n tokens, the same whatever else is read."""
    random = torch.Generator().manual_seed(seed * 1000 + zlib.crc32(str(reading).encode()) % 1000)
    if reading.what == "groups":
        return torch.randint(0, max(1, n // 2), (n,), generator=random)
    shape = [2, n] if reading.heads == "each" else [n]
    if reading.rows:
        return torch.rand(shape, generator=random) / n if reading.what == "attention" else torch.randn(shape, generator=random)
    if reading.what == "keys":
        return torch.randn(*shape, 4, generator=random)
    return (torch.randn(n, _WIDTH, generator=random) + torch.randn(1, _WIDTH, generator=random)).to(dtype)


def check_pruner(pruner: Pruner, model: str | None = "llava-onevision") -> None:
    """Check a pruner, with any settings, against the contract of `Pruner`.

    On made-up samples it keeps as many tokens as it is told (unless it says that it is not `exact`), in order, the same ones again, reads
    nothing but its `needs`, changes nothing, and keeps everything where everything may be kept. On a tiny model the engine can apply it.

    Args:
        pruner: the method and its settings. model: one of `biaskit.testing.TINY`, or None for the made-up samples alone.

    Raises:
        AssertionError: the contract is broken; the message says how.
        BiaskitError: it needs something that is no Reading, or reads what it does not need.

    Example:
        >>> from biaskit.pruners import get_pruner
        >>> check_pruner(get_pruner("uniform", retention=0.25), model=None)
    """
    name = type(pruner).__name__
    assert dataclasses.is_dataclass(type(pruner)), f"{name} is not a dataclass"
    check_readings(pruner.needs, name)
    layers = [stage.layer for stage in pruner.stages()]
    assert layers and all(a < b for a, b in pairwise(layers)), f"the stages of {name} do not ascend: {layers}"
    for place, layout in sample_layouts().items():
        for budget in (1, 7, len(layout) - 1):
            for dtype in (torch.float32, torch.bfloat16):
                _check_select(
                    pruner, layout, budget, layers[0], dtype, f"{name} on {place} of a model in {str(dtype).removeprefix('torch.')}"
                )
        everything = pruner.select(Signals(layout, layers[0]), len(layout))
        assert everything.indices.tolist() == list(range(len(layout))), f"{name} does not keep all of {len(layout)} tokens"
    if model is not None:
        _check_applied(pruner, model, name)


def _check_select(pruner: Pruner, layout: Layout, budget: int, layer: int, dtype: torch.dtype, where: str) -> None:
    def signals() -> Signals:
        return sample_signals(layout, frozenset(pruner.needs), layer=layer, a_bias=pruner.prior != "unused", dtype=dtype)

    seen, fresh = signals(), signals()
    kept = pruner.select(seen, budget)
    check_keep(kept, len(layout), where, width=_WIDTH)
    assert len(kept) == budget or not _exact(pruner), f"{where} keeps {len(kept)} tokens instead of {budget}"
    again = pruner.select(fresh, budget)
    same = torch.equal(kept.indices, again.indices) and (kept.values is None) == (again.values is None)
    if kept.values is not None and again.values is not None:
        same = same and torch.equal(kept.values, again.values)
        assert bool(kept.values.isfinite().all()), f"{where} puts numbers into the sequence that are not finite"
    assert same, f"{where} answers differently the second time"
    assert all(isinstance(value, int | float) for value in kept.info.values()), f"{where} reports something that is not a number"
    untouched = signals()
    for reading, before in untouched.readings.items():
        assert torch.equal(before, seen.readings[reading]), f"{where} changes {reading}"
    for item in dataclasses.fields(Signals):
        before, after = getattr(untouched, item.name), getattr(seen, item.name)
        assert not isinstance(before, Tensor) or torch.equal(before, after), f"{where} changes {item.name}"


def _exact(pruner: Pruner) -> bool:
    found: bool = getattr(pruner, "exact", True)
    return found


def _check_applied(pruner: Pruner, model_name: str, name: str) -> None:
    from biaskit.families.checkpoints.tiny import tiny_inputs, tiny_model

    model, processor, family = tiny_model(model_name, layers=max(stage.layer for stage in pruner.stages()) + 2)
    inputs = tiny_inputs(family, processor, model.config)
    prior = None
    layers = [stage.layer + getattr(pruner, "attention_layer", -1) for stage in pruner.stages()]
    if pruner.prior != "unused" and layers[0] >= 0:
        prior = flat_prior(family, model.config, layers)
    with prune(model, pruner, prior=prior, say=lambda _line: None) as pruning:
        model.generate(**inputs, max_new_tokens=2, do_sample=False)
    for sample in pruning.samples:
        wanted = pruner.stages()[-1].tokens(sample.n_visual)
        assert len(sample) == wanted or not _exact(pruner), (
            f"{name} keeps {len(sample)} of {sample.n_visual} visual tokens instead of {wanted}"
        )


def flat_prior(family: ModelFamily, config: Any, layers: list[int]) -> Prior:
    """A prior without any bias, 1 everywhere, for a family's canonical planes."""
    planes = {name: PlaneStats(np.ones((len(layers), *size), dtype=np.float32)) for name, size in family.canonical(config).items()}
    meta = {"model_type": config.model_type, "kind": "imported"}
    return Prior(planes, tuple(layers), np.ones(len(layers), dtype=np.float32), meta)


@dataclasses.dataclass(frozen=True)
class _At:
    layer: int

    def tokens(self, n_tokens: int) -> int:
        return max(1, n_tokens // 3)


class _EveryThird:
    """A pruner that looks at nothing: with it, pruning with and without a cache must agree."""

    needs: frozenset[Reading] = frozenset()
    prior = "unused"
    positions = "original"

    def __init__(self, layer: int) -> None:
        self.layer = layer

    def stages(self) -> tuple[_At, ...]:
        return (_At(self.layer),)

    def select(self, _signals: Signals, budget: int) -> Keep:
        return Keep(torch.arange(budget) * 3)


class _FirstThird(_EveryThird):
    """Another one, which remembers what it was shown."""

    def __init__(self, needs: frozenset[Reading]) -> None:
        super().__init__(0)
        self.needs, self.seen = needs, list[Signals]()

    def select(self, signals: Signals, budget: int) -> Keep:
        self.seen.append(signals)
        return Keep(torch.arange(budget))


def check_family(model: Any, processor: Any, family: ModelFamily) -> None:
    """Check a model family on a checkpoint, best a tiny random one in float32 or float64.

    The layouts' positions are those of the image placeholders, every plane has a canonical size, and at layers 0 to 3 the engine prunes it
    so that generating with a cache gives the same logits as without. If the family says which patches are behind a token, the projector
    makes the token's embedding of them.

    Args:
        model, processor: of the checkpoint. family: what is checked.

    Raises:
        AssertionError: something of this does not hold; the message says what.

    Example:
        >>> from biaskit.families.checkpoints.tiny import tiny_model
        >>> check_family(*tiny_model("llava-1.5"))
    """
    from biaskit.families.checkpoints.tiny import tiny_inputs

    inputs = tiny_inputs(family, processor, model.config)
    canonical = family.canonical(model.config)
    for ids, layout in zip(inputs["input_ids"], family.layout(model.config, inputs), strict=True):
        places = (ids == model.config.image_token_id).nonzero()[:, 0].tolist()
        assert layout.positions.tolist() == places, "the layout's positions are not those of the image placeholders"
        unknown = {plane.name for plane in layout.planes} - set(canonical)
        assert not unknown, f"planes {sorted(unknown)} have no canonical size"
    inputs = {name: value.to(model.dtype) if value.is_floating_point() else value for name, value in inputs.items()}
    _check_patches(model, family, inputs)
    settings: dict[str, Any] = {"max_new_tokens": 4, "do_sample": False, "return_dict_in_generate": True, "output_logits": True}
    settings["suppress_tokens"] = sorted(set(processor.tokenizer.all_special_ids) | {model.config.image_token_id})
    plain = torch.stack(model.generate(**inputs, **settings).logits)
    for layer in range(4):
        with prune(model, _EveryThird(layer)):  # type: ignore[arg-type]
            cached, anew = (torch.stack(model.generate(**inputs, **settings, use_cache=use).logits) for use in (True, False))
        error = float((cached - anew).abs().max())
        assert error < 1e-4, f"pruned at layer {layer}, logits with and without a cache differ by {error:.1e}"
        assert float((cached - plain).abs().max()) > 1e-4, f"pruning at layer {layer} changes nothing"
    assert torch.equal(torch.stack(model.generate(**inputs, **settings).logits), plain), "the model is not as before"


def _check_patches(model: Any, family: ModelFamily, inputs: dict[str, Any]) -> None:
    try:
        family.patches(model.config, inputs)
    except ModelError:
        return  # it does not say: only methods that read the vision tower miss it
    layer = getattr(model.config, "vision_feature_layer", -1)
    reading = Reading("hidden", "tower", layer=layer if isinstance(layer, int) else -1)
    looks, merged = _FirstThird(frozenset({reading, EMBEDS})), family.tower(model).merged
    with torch.no_grad(), prune(model, looks):  # type: ignore[arg-type]
        model(**inputs)
    for signals in looks.seen:
        assert signals.patch_index is not None and signals.project is not None
        index = signals.patch_index.index
        tokens = torch.from_numpy(np.flatnonzero((index >= 0).all(1)))
        if index.shape[1] == merged:  # else tokens were interpolated from several patches
            error = float((signals.project(signals.patch_rows(reading, tokens)) - signals.at(EMBEDS, tokens)).abs().max())
            assert error < 1e-4, f"the patches behind a token do not make its embedding: they differ by {error:.1e}"
