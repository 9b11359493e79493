"""Kept tokens with new contents: pruned generate() equals the slow reference with the same rows put in by hand."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import pytest
import torch
from cases import ONE_OF_EACH, batch, generate
from reference import Anywhere, Steps, by_hand, cast, model_of

from biaskit.engine.prune import prune
from biaskit.engine.reference import reference_logits
from biaskit.errors import BiaskitError
from biaskit.families.checkpoints.tiny import TINY
from biaskit.pruners.readings import EMBEDS, HIDDEN, Reading
from biaskit.select.keep import Keep
from biaskit.testing import check_pruner


@dataclass(frozen=True)
class Merges(Anywhere):
    """Random tokens, each the mean of itself and of the dropped token that comes to it in turn."""

    at: tuple = ((0, 5),)
    seen: list = field(default_factory=list)

    @property
    def needs(self):
        return frozenset({EMBEDS if self.at[0][0] == 0 else HIDDEN})

    def stages(self):
        return Steps(at=self.at).stages()

    def select(self, signals, budget):
        kept = super().select(signals, budget).indices
        rows = signals[EMBEDS if signals.layer == 0 else HIDDEN]
        dropped = torch.from_numpy(np.setdiff1d(np.arange(len(signals)), kept.numpy()))
        values = (rows[kept] + rows[dropped[: len(kept)]]) / 2
        self.seen.append((signals, Keep(kept, values=values.clone())))
        return Keep(kept, values=values)


@dataclass(frozen=True)
class MergesSome(Merges):
    """Another number of tokens of every sample."""

    exact: ClassVar[bool] = False

    def select(self, signals, budget):
        return super().select(signals, 3 + int(torch.randint(0, budget - 3, (), generator=signals.generator)))


def check(name, pruner, *, dtype=torch.float64, attention="sdpa", tolerance=1e-6, case="padded"):
    inputs, model = batch(name, case), model_of(name, attention, dtype)[0]
    with prune(model, pruner) as pruning:
        _, tokens, logits = generate(model, cast(inputs, dtype))
    left, values = by_hand(inputs, model.config, pruner.seen)
    slow = model_of(name)[0]
    expected = reference_logits(slow, inputs, tokens, left, values=values)
    assert float((expected - logits).abs().max()) < tolerance
    same = reference_logits(slow, inputs, tokens, left)
    assert float((expected - same)[:, 0].abs().amax(-1).min()) > 1e-3, "the contents must matter"
    return pruning


@pytest.mark.parametrize("layer", [0, 1, 2, 3])
@pytest.mark.parametrize("name", TINY)
def test_merged_tokens_equal_the_reference(name, layer):
    check(name, Merges(at=((layer, 5),)))


@pytest.mark.parametrize("layer", [0, 2])
@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_samples_that_keep_different_numbers(name, layer):
    pruning = check(name, MergesSome(at=((layer, 9),)), case="ragged")
    assert len({len(sample) for sample in pruning.samples}) == 2


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_eager_attention(name):
    check(name, Merges(at=((2, 5),)), attention="eager", dtype=torch.float32, tolerance=1e-4)


@pytest.mark.parametrize("at", [((0, 9), (2, 4)), ((1, 9), (3, 4))], ids=str)
@pytest.mark.parametrize("name", ["llava-1.5", "qwen3-vl", "internvl-qwen2"])
def test_several_stages(name, at):
    if at[0][0] == 0:

        @dataclass(frozen=True)
        class Both(Merges):
            def select(self, signals, budget):
                if signals.layer == 0:
                    return super().select(signals, budget)
                kept = Anywhere.select(self, signals, budget).indices
                self.seen.append((signals, Keep(kept, values=signals[EMBEDS][kept].clone())))
                return self.seen[-1][1]

        check(name, Both(at=at))
    else:
        check(name, Merges(at=at))


@dataclass(frozen=True)
class Doubles(Anywhere):
    """Keeps every token, with other contents."""

    layer: int = 2
    exact: ClassVar[bool] = False
    needs: ClassVar[frozenset] = frozenset({HIDDEN})

    def select(self, signals, budget):
        return Keep(torch.arange(len(signals)), values=signals[HIDDEN] * 2)


@pytest.mark.parametrize("name", ["llava-1.5", "qwen2.5-vl"])
def test_contents_alone_may_change(name):
    model, inputs = model_of(name)[0], cast(batch(name, "padded"), torch.float64)
    seen = []

    def double(module, args, kwargs):
        hidden = (args[0] if args else kwargs["hidden_states"]).clone()
        if hidden.shape[1] == inputs["input_ids"].shape[1]:
            hidden[inputs["input_ids"] == model.config.image_token_id] *= 2
        return ((hidden, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": hidden})

    handle = model.get_decoder().layers[2].register_forward_pre_hook(double, with_kwargs=True)
    _, tokens, expected = generate(model, inputs)
    handle.remove()
    with prune(model, Doubles(), observe=lambda signals, keep: seen.append(keep) or {}) as pruning:
        _, same, logits = generate(model, inputs)
    assert torch.equal(tokens, same) and torch.equal(logits, expected)
    assert len(seen) == 2 and all(len(sample) == sample.n_visual for sample in pruning.samples)
    assert len(generate(model, inputs)[1]) == 2


@pytest.mark.parametrize("name", TINY)
def test_tower_features_that_were_merged_go_through_the_projector(name):
    """Contents as VisionZip makes them: projected again, every kept token is what it was."""
    reading = Reading("hidden", "tower", layer=getattr(model_of(name)[0].config, "vision_feature_layer", -1))

    @dataclass(frozen=True)
    class Projects(Anywhere):
        needs: ClassVar[frozenset] = frozenset({reading})

        def select(self, signals, budget):
            index = signals.patch_index.index
            whole = torch.from_numpy(np.flatnonzero(index.min(1) >= 0))[:budget]
            features = torch.cat(signals.patches(reading))[torch.from_numpy(index)[whole]]
            return Keep(whole, values=signals.project(features))

    @dataclass(frozen=True)
    class Keeps(Anywhere):
        def select(self, signals, budget):
            newline = [number for number, plane in enumerate(signals.layout.planes) if plane.name == "newline"]
            return Keep(torch.from_numpy(np.flatnonzero(~np.isin(signals.layout.plane, newline))[:budget]))

    model, inputs = model_of(name)[0], cast(batch(name, "padded"), torch.float64)
    logits = []
    for method in (Projects(budget=9), Keeps(budget=9)):
        with prune(model, method):
            logits.append(generate(model, inputs, max_new_tokens=2)[2])
    torch.testing.assert_close(*logits, atol=1e-5 if name == "gemma3" else 1e-6, rtol=0)  # Gemma's norms are in float32 always


@pytest.mark.parametrize("shape", [(5,), (4, 64), (5, 63)])
def test_contents_of_a_wrong_shape(shape):
    @dataclass(frozen=True)
    class Wrong(Anywhere):
        def select(self, signals, budget):
            return Keep(torch.arange(5), values=torch.zeros(shape))

    model = model_of("llava-1.5", dtype=torch.float32)[0]
    with torch.no_grad(), prune(model, Wrong(budget=5)), pytest.raises(BiaskitError, match="Wrong answered with values") as found:
        model(**batch("llava-1.5", "single"))
    assert "[5, 64]" in found.value.hint


def test_the_contract_knows_contents_and_counts():
    @dataclass(frozen=True)
    class Mean(Anywhere):
        layer: int = 2
        budget: int = 5
        needs: ClassVar[frozenset] = frozenset({HIDDEN})
        exact: ClassVar[bool] = False

        def select(self, signals, budget):
            if budget >= len(signals):
                return Keep(torch.arange(len(signals)))
            return Keep(torch.arange(1), values=signals[HIDDEN].mean(0, keepdim=True))

    check_pruner(Mean())

    @dataclass(frozen=True)
    class Exact(Mean):
        exact: ClassVar[bool] = True

    with pytest.raises(AssertionError, match="keeps 1 tokens instead of 7"):
        check_pruner(Exact(), model=None)

    @dataclass(frozen=True)
    class NotFinite(Mean):
        def select(self, signals, budget):
            keep = super().select(signals, budget)
            return keep if keep.values is None else Keep(keep.indices, values=keep.values / 0)

    with pytest.raises(AssertionError, match="not finite"):
        check_pruner(NotFinite(), model=None)
