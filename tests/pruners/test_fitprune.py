"""FitPrune: its schedule from calibration to budget, whom it deletes, exactness on every family."""

from __future__ import annotations

import dataclasses

import numpy as np
import oracles
import oracles_field
import pytest
import torch
from cases import batch, generate
from reference import by_hand, cast, model_of
from samples import schedule_of, signals

from biaskit import calibrate_schedule, get_pruner, prune
from biaskit.calibration.attend import rows_of
from biaskit.calibration.deletions import Deletions
from biaskit.calibration.schedule import SAMPLES
from biaskit.engine.made_up import sample_signals
from biaskit.engine.maps import attention_maps
from biaskit.engine.prune import check_prune
from biaskit.engine.recorder import query_rows
from biaskit.engine.reference import reference_logits
from biaskit.errors import BiaskitError, PriorError
from biaskit.families.checkpoints.decoder import decoder
from biaskit.families.checkpoints.load import Loaded
from biaskit.families.checkpoints.tiny import TINY, tiny_model
from biaskit.images.generated import GeneratedSource
from biaskit.prior.value import Prior
from biaskit.pruners.fitprune import OWN, cross
from biaskit.pruners.schedule import ALPHAS, Schedule
from biaskit.select import fitprune_schedule, fitprune_select, gated_cost
from biaskit.testing import check_pruner


def build(model_type="llava_onevision", depth=10, **more):
    return get_pruner("fitprune", **{"retention": 0.2, "schedule": schedule_of(model_type, depth), **more})


def depth_of(model):
    return len(decoder(model).layers)


@pytest.mark.parametrize("name", ["llava-onevision", "qwen2.5-vl", "internvl-qwen2"])
def test_maps_are_those_of_eager_attention(name):
    inputs = batch(name, "padded")
    model, eager = model_of(name, "sdpa", torch.float32)[0], model_of(name, "eager", torch.float32)[0]
    with torch.no_grad():
        attentions = eager(**inputs, output_attentions=True).attentions
    ids, valid = inputs["input_ids"], inputs["attention_mask"].bool()
    visual = ids == model.config.image_token_id
    rows = {reading: query_rows(valid.numpy(), visual.numpy(), reading.queries) for reading in (cross("question"), OWN)}
    found = attention_maps(model, inputs, rows, range(len(attentions)))
    for layer, maps in enumerate(attentions):
        largest = maps.amax(1)
        for row in range(len(ids)):
            after = int(visual[row].nonzero().max())
            text = valid[row] & ~visual[row] & (torch.arange(ids.shape[1]) > after)
            for part, rows in enumerate((text, visual[row])):
                wanted = largest[row, rows].mean(0)[visual[row]]
                torch.testing.assert_close(found[layer, row, part, visual[row]], wanted, rtol=1e-4, atol=1e-7)


def test_streamed_counts_give_the_schedule_of_all_maps_at_once():
    """The same α and deletions as the bisection over samples that are all held in memory, by the oracle's deletions."""
    random, place = np.random.default_rng(1), signals((6, 8)).layout
    samples = [random.random((5, 2, 48)) ** 4 for _ in range(4)]
    parts = [Deletions(5), Deletions(5)]
    for slot, maps in enumerate(samples):
        parts[slot % 2].add(slot, place, maps)
    parts[0].merge(parts[1].alike().restore(parts[1].tensors()))
    meta = {"model_type": "llava", "hidden_size": "8", "intermediate_size": "24"}
    schedule = Schedule(*(parts[0].mean(part) for part in ("share", "entering", "squares")), meta)
    for saving in (0.1, 0.3, 0.5, 0.7):
        deleted, alpha = fitprune_schedule([(maps[:, 0], maps[:, 1]) for maps in samples], saving, gated_cost(8, 24))
        at = schedule.for_saving(saving)
        assert ALPHAS[at] == alpha
        assert schedule.counts(at, 48) == (48 - np.cumsum(deleted)).tolist()
        by_hand = np.mean([oracles_field.fitprune(maps[:, 0], maps[:, 1], alpha) for maps in samples], axis=0)
        assert (schedule.share[at] * 48).round(9).tolist() == by_hand.tolist()
    for share in (0.8, 0.4, 0.1):
        at = schedule.for_share(share)
        assert schedule.left(at) <= share < schedule.left(at - 1)


def test_a_calibration_equals_a_loop_and_goes_on_after_an_interruption(tmp_path):
    model, processor, family = tiny_model("qwen2.5-vl")
    unit, source = Loaded(model, processor, family, "tiny", "test"), GeneratedSource(3, 0)
    whole = calibrate_schedule(unit, source, batch_size=1, workers=0, out=tmp_path / "whole.safetensors")
    counted = Deletions(depth_of(model))
    for slot in range(3):
        prepared = family.prepare(processor, model.config, [[source.load(slot)]], ["Please describe the provided image."])
        rows = {reading: rows_of(prepared, reading.queries) for reading in (cross("question"), OWN)}
        maps = attention_maps(model, prepared.inputs, rows, range(depth_of(model)))
        counted.add(slot, prepared.layouts[0], maps[:, 0, :, prepared.layouts[0].positions].numpy())
    assert np.array_equal(whole.share, counted.mean("share")) and np.array_equal(whole.squares, counted.mean("squares"))

    def stop(progress):
        if progress.done == 2:
            raise KeyboardInterrupt

    out = tmp_path / "stopped.safetensors"
    with pytest.raises(KeyboardInterrupt):
        calibrate_schedule(unit, source, batch_size=1, workers=0, out=out, report=stop, save_every=0)
    assert not out.exists() and out.with_name(f"{out.name}.partial").exists()
    calibrate_schedule(unit, source, batch_size=1, workers=0, out=out)
    assert out.read_bytes() == (tmp_path / "whole.safetensors").read_bytes()
    found = Schedule.load(out)
    facts = {"model": "tiny", "revision": "test", "model_type": "qwen2_5_vl", "n_images": "3", "kind": "schedule", "source": source.name}
    assert {name: found.meta[name] for name in facts} == facts and found.meta["prompt"] and SAMPLES == 66
    again = calibrate_schedule(unit, source, batch_size=1, workers=0, out=out)
    assert np.array_equal(again.share, whole.share)
    with pytest.raises(BiaskitError, match='seed was "0", is "1"'):
        calibrate_schedule(unit, source, batch_size=1, workers=0, out=out, seed=1)
    with pytest.raises(PriorError, match="is a schedule of FitPrune, not a prior"):
        Prior.load(out)


@pytest.mark.parametrize("positions", ["original", "compact"])
@pytest.mark.parametrize("name", TINY)
def test_pruned_generation_equals_the_reference(name, positions):
    model, inputs, seen = model_of(name, "sdpa", torch.float64)[0], batch(name, "padded"), []
    if positions == "compact" and model.config.model_type.startswith(("qwen", "glm")):
        pytest.skip("multi-axis positions are never renumbered")
    pruner = build(model.config.model_type, depth_of(model), positions=positions)

    def observe(found, keep):
        seen.append((found, keep))
        return {}

    with prune(model, pruner, observe=observe, say=lambda line: None) as pruning:
        _, tokens, logits = generate(model, cast(inputs, torch.float64))
    left, values = by_hand(inputs, model.config, seen)
    expected = reference_logits(model_of(name)[0], inputs, tokens, left, values=values, compact=positions == "compact")
    assert float((expected - logits).abs().max()) < 1e-6
    for sample in pruning.samples:
        kept = {layer: n for layer, n, _ in sample.stages}
        assert len(sample) == round(0.2 * sample.n_visual + 1e-9) and len(kept) > 1
        text = {length - kept.get(layer, 0) for layer, length in enumerate(sample.cache_lengths) if layer in kept}
        assert len(text) == 1 and sample.cache_lengths[0] == sample.n_visual + text.pop(), "layer 0 holds what goes before layer 1"


def test_the_contract():
    check_pruner(build(), model=None)  # a schedule is of one depth: below every tiny model runs with its own
    check_pruner(build(retention=None, saving=0.4), model=None)
    check_pruner(build(debias="null", mode="p_log"), model=None)


def test_it_keeps_the_largest_products():
    pruner = build(budget=9, retention=None)
    seen = sample_signals(signals((6, 6)).layout, frozenset(pruner.needs), layer=1, a_bias=False)
    first, second = seen[cross("question")].tolist(), seen[OWN].tolist()
    expected = sorted(oracles.descending([a * b for a, b in zip(first, second, strict=True)])[:9])
    assert pruner.select(seen, 9).indices.tolist() == expected
    assert fitprune_select(seen[cross("question")], seen[OWN], 9).tolist() == expected


def test_golden():
    """By hand: N = 4, α = 1/2; a map of sum 10 may fall to 5. Token 0 is weak in cross and strong in self."""
    maps = np.array([[[1.0, 2, 3, 4], [4, 1, 2, 3]], [[1, 2, 3, 4], [1, 2, 3, 4]]])
    # layer 0: cross spares 0, 1 (7 is left, then 4 < 5); self spares 1, 2 (7 is left, then 4): both spare 1.
    # layer 1: of 0, 2, 3 with 8 left, both maps spare 0 (7 is left), not 2 (4 < 5): token 0 goes.
    counted = Deletions(2)
    counted.add(0, signals((2, 2)).layout, maps)
    at = ALPHAS.index(0.5)
    assert (counted.mean("share")[at] * 4).tolist() == [1, 1]
    assert (counted.mean("entering")[at].tolist(), counted.mean("squares")[at].tolist()) == ([4, 3], [16, 9])
    # at inference the product decides: 4, 2, 6, 12 → token 1 goes first; with self alone it is 1, with cross alone 0.
    pruner = get_pruner("fitprune", budget=3, schedule=schedule_of("llava", 4))
    seen = dataclasses.replace(
        signals((2, 2)), readings={cross("question"): torch.tensor([1.0, 2, 3, 4]), OWN: torch.tensor([4.0, 1, 2, 3])}
    )
    assert pruner.select(seen, 3).indices.tolist() == [0, 2, 3]
    assert pruner.select(seen, 2).indices.tolist() == [2, 3]


def test_a_budget_is_what_the_last_layer_sees_and_a_saving_is_the_paper_s():
    schedule = schedule_of("llava", 8)
    stages = get_pruner("fitprune", budget=100, schedule=schedule).stages()
    counts = schedule.counts(schedule.for_share(100 / 576), 576)
    assert [stage.layer for stage in stages] == [1, *(n for n in range(2, 8) if counts[n - 1] < counts[n - 2])]
    assert [stage.tokens(576) for stage in stages[:-1]] == [max(counts[stage.layer - 1], 100) for stage in stages[:-1]]
    assert stages[-1].tokens(576) == 100
    saved = get_pruner("fitprune", saving=0.5, schedule=schedule).stages()
    counts = schedule.counts(schedule.for_saving(0.5), 576)
    assert [stage.tokens(576) for stage in saved] == [counts[stage.layer - 1] for stage in saved]
    later = get_pruner("fitprune", budget=100, layer=3, schedule=schedule).stages()
    assert later[0].layer == 3 and later[0].tokens(576) == max(schedule.counts(schedule.for_share(100 / 576), 576)[2], 100)


def test_a_schedule_is_checked_against_the_model(tmp_path):
    model = model_of("llava-1.5", "sdpa", torch.float32)[0]
    depth = depth_of(model)
    for wrong in (schedule_of("qwen2_vl", depth), schedule_of("llava", depth + 1)):
        with pytest.raises(PriorError, match="this schedule is for model type") as caught:
            check_prune(model, build(schedule=wrong), None, print)
        assert "biaskit calibrate --schedule" in caught.value.hint
    mine = schedule_of("llava", depth)
    other = Schedule(mine.share, mine.entering, mine.squares, {**mine.meta, "model": "a/b", "revision": "files-1"})
    loaded = Loaded(model, *tiny_model("llava-1.5")[1:], "c/d", "files-2")
    with pytest.warns(UserWarning, match="this schedule was calibrated on") as told:
        check_prune(loaded, build(schedule=other), None, print)
    assert len(told) == 2
    file = tmp_path / "s.safetensors"
    mine.save(file)
    assert build(schedule=str(file)).plan.counts(5, 576) == mine.counts(5, 576)
    with pytest.raises(BiaskitError, match="exists"):
        mine.save(file)


def test_what_is_refused(tmp_path):
    with pytest.raises(BiaskitError, match="needs a calibrated schedule") as caught:
        get_pruner("fitprune", retention=0.2)
    assert "biaskit calibrate --schedule" in caught.value.hint
    with pytest.raises(BiaskitError, match="layer is 0"):
        build(layer=0)
    with pytest.raises(BiaskitError, match="beside a retention"):
        build(saving=0.4)
    with pytest.raises(BiaskitError, match="no schedule saves 99%"):
        build(retention=None, saving=0.99)
    file = tmp_path / "prior.safetensors"
    file.write_bytes(b"x" * 20)
    with pytest.raises(PriorError, match="not a safetensors file"):
        build(schedule=str(file))
    with pytest.raises(PriorError, match="of a schedule is"):
        Schedule(np.zeros((3, 2)), np.zeros((3, 2)), np.zeros((3, 2)), {})
