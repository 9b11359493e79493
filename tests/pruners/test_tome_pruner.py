"""ToMe on stock models: what the tower computes equals a tower that really shrinks, and generation the slow reference."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cases import batch, generate
from reference import cast, model_of

from biaskit import get_pruner, prune
from biaskit.engine.image_encoder import encode_once
from biaskit.engine.prune import check_prune
from biaskit.engine.reference import reference_logits
from biaskit.engine.tower_merging import merge_in_tower
from biaskit.errors import BiaskitError, ModelError
from biaskit.families import families
from biaskit.pruners.readings import MERGED
from biaskit.select import merging_schedule, tokens_after
from biaskit.testing import check_pruner

PATCH_IS_TOKEN = ["llava-1.5", "llava-next", "llava-onevision"]


def attend(attention, x, sizes):
    """Eager attention of one tile, [T, D], with log(size) added to the logits of each key; also the keys, averaged over heads."""
    heads = attention.num_heads
    q, k, v = (project(x).view(len(x), heads, -1).transpose(0, 1) for project in (attention.q_proj, attention.k_proj, attention.v_proj))
    logits = q @ k.transpose(1, 2) * attention.scale + sizes.log()
    return attention.out_proj((logits.softmax(-1) @ v).transpose(0, 1).flatten(1)), k.mean(0)


def pair_up(keys, r, has_cls):
    """ToMe's matching written out: [(even, odd)] of the r best pairs."""
    unit = keys.float().numpy() / np.linalg.norm(keys.float().numpy(), axis=1, keepdims=True)
    best = []
    for a in range(2 * has_cls, len(unit), 2):
        similar = unit[1::2] @ unit[a]
        best.append((float(similar.max()), a, 1 + 2 * int(similar.argmax())))
    best.sort(key=lambda one: -one[0])
    return [(a, b) for _, a, b in best[:r]]


def shrinking(tower, x, schedule):
    """Run the blocks on one tile, [T, D], whose rows really become fewer: features of the rows, and the patches in each."""
    has_cls, sizes = int(tower.has_cls), torch.ones(len(x), dtype=x.dtype)
    members = [[i] for i in range(len(x))]
    for block, r in zip(tower.blocks, schedule, strict=False):
        out, keys = attend(block.self_attn, block.layer_norm1(x), sizes)
        x = x + out
        gone = set()
        for a, b in pair_up(keys, r, has_cls):
            x[b] = (x[b] * sizes[b] + x[a] * sizes[a]) / (sizes[a] + sizes[b])
            sizes[b] += sizes[a]
            members[b] = members[b] + members[a]
            gone.add(a)
        order = [i for i in range(0, len(x), 2) if i not in gone] + list(range(1, len(x), 2))
        x, sizes, members = x[order], sizes[order], [members[i] for i in order]
        x = x + block.mlp(block.layer_norm2(x))
    return x, members


def entering(model, inputs):
    """What the first block of the tower gets, and the stock output of the last block that is read."""
    tower = families.get(model.config.model_type).tower(model)
    seen = {}
    first = tower.blocks[0].register_forward_pre_hook(
        lambda _m, args, kwargs: seen.update(x=args[0] if args else kwargs["hidden_states"]), with_kwargs=True
    )
    last = tower.blocks[tower.blocks_read - 1].register_forward_hook(
        lambda _m, _a, out: seen.update(out=out if torch.is_tensor(out) else out[0])
    )
    with torch.no_grad(), merge_in_tower(tower, 0.7) as groups:
        model(**inputs)
    first.remove()
    last.remove()
    return tower, seen["x"], seen["out"], groups[0]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", ["llava-1.5", "llava-onevision"])
def test_the_tower_computes_what_one_that_shrinks_does(name, attention):
    model = model_of(name, attention, torch.float64)[0]
    tower, x, out, groups = entering(model, cast(batch(name, "single"), torch.float64))
    has_cls, patches = int(tower.has_cls), x.shape[1] - int(tower.has_cls)
    n, tolerance = int(patches * 0.7 + 0.5), 1e-9 if attention == "sdpa" else 1e-5  # eager softmax is float32
    schedule = merging_schedule(patches, n, tower.blocks_read, protected=has_cls)
    assert sum(schedule) == patches - n
    for tile in range(len(x)):
        with torch.no_grad():
            rows, members = shrinking(tower, x[tile].clone(), schedule)
        assert len(rows) == n + has_cls
        partition = {frozenset(part) for part in members}
        mine = [torch.nonzero(groups[tile] == number)[:, 0] + has_cls for number in range(n)]
        assert {frozenset(part.tolist()) for part in mine} | ({frozenset([0])} if has_cls else set()) == partition
        for row, part in zip(rows, members, strict=True):
            for place in part:
                torch.testing.assert_close(out[tile, place], row, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", PATCH_IS_TOKEN)
def test_pruned_generation_equals_the_reference(name):
    model, inputs, seen = model_of(name, "sdpa", torch.float64)[0], batch(name, "padded"), []
    embeds = []

    def observe(signals, keep):
        seen.append((signals.layout, keep.indices.numpy()))
        groups = signals.patches(MERGED)
        assert len(keep) <= sum(len(part.unique()) for part in groups) == sum(int(len(part) * 0.7 + 0.5) for part in groups)
        return {}

    stack = model.base_model.language_model
    grab = stack.register_forward_pre_hook(lambda _m, _a, kwargs: embeds.append(kwargs["inputs_embeds"]), with_kwargs=True)
    with prune(model, get_pruner("tome", retention=0.7, positions="original"), observe=observe):
        _, tokens, logits = generate(model, cast(inputs, torch.float64))
    grab.remove()
    ids = inputs["input_ids"].numpy()
    left, values = [], []
    for row, (layout, kept) in enumerate(seen):
        positions = layout.positions[kept]
        left.append(
            [(0, np.setdiff1d(np.arange(ids.shape[1]), np.setdiff1d(np.flatnonzero(ids[row] == model.config.image_token_id), positions)))]
        )
        values.append({0: (positions, embeds[0][row, positions])})
    expected = reference_logits(model_of(name)[0], inputs, tokens, left, values=values)
    assert float((expected - logits).abs().max()) < 1e-6
    same = reference_logits(model_of(name)[0], inputs, tokens, left)
    assert float((expected - same)[:, 0].abs().amax(-1).min()) > 1e-4, "the contents must matter"


def test_llava_keeps_the_share_to_the_token():
    model = model_of("llava-1.5", "sdpa", torch.float32)[0]
    with prune(model, get_pruner("tome", retention=0.75)) as pruning:
        model.generate(**batch("llava-1.5", "single"), max_new_tokens=1, do_sample=False)
    assert [len(sample) for sample in pruning.samples] == [432]


def test_everything_kept_changes_no_bit_and_the_tower_is_as_before():
    model, inputs = model_of("llava-1.5", "sdpa", torch.float32)[0], batch("llava-1.5", "single")
    _, _, plain = generate(model, inputs)
    with prune(model, get_pruner("tome", retention=1.0)):
        assert torch.equal(generate(model, inputs)[2], plain)
    with prune(model, get_pruner("tome", retention=0.6)):
        generate(model, inputs)
    assert torch.equal(generate(model, inputs)[2], plain)


def test_features_that_others_remember_are_not_merged_ones():
    model, inputs = model_of("llava-1.5", "sdpa", torch.float32)[0], batch("llava-1.5", "single")
    uniform, tome = get_pruner("uniform", retention=0.5), get_pruner("tome", retention=0.6)
    with prune(model, uniform):
        expected = generate(model, inputs)[2]
    with prune(model, tome):
        merged = generate(model, inputs)[2]
    with encode_once(model, tome.needs):
        for pruner, wanted in ((uniform, expected), (tome, merged), (uniform, expected)):
            with prune(model, pruner):
                assert torch.equal(generate(model, inputs)[2], wanted)


@pytest.mark.parametrize("name", ["qwen2.5-vl", "internvl-qwen2"])
def test_towers_whose_patches_are_no_tokens_are_refused_before_anything_runs(name):
    with pytest.raises(ModelError, match="4 of its patches make one visual token") as caught:
        check_prune(model_of(name, "sdpa", torch.float32)[0], get_pruner("tome", retention=0.5), None, print)
    assert "llava" in caught.value.hint


def test_a_budget_is_refused_with_the_share_that_means_it():
    with pytest.raises(BiaskitError, match="before the prompt is known") as caught:
        get_pruner("tome", budget=64)
    assert "64/576" in caught.value.hint
    assert get_pruner("tome", preset="64").retention == 64 / 576


def test_the_contract():
    check_pruner(get_pruner("tome", retention=0.6))


@pytest.mark.parametrize(
    ("patches", "n", "blocks", "cls"), [(576, 192, 23, 1), (576, 64, 23, 1), (576, 1, 23, 1), (729, 100, 26, 0), (9, 9, 2, 1)]
)
def test_schedules_reach_the_number(patches, n, blocks, cls):
    schedule = merging_schedule(patches, n, blocks, protected=cls)
    counts = tokens_after(patches + cls, schedule, protected=cls)
    assert counts[-1] == n + cls
    assert patches - n == sum(schedule)


def test_too_few_blocks_say_what_they_can():
    with pytest.raises(BiaskitError, match="2 blocks cannot merge 576 patches into 100") as caught:
        merging_schedule(576, 100, 2)
    assert "keep 144 of 576" in caught.value.hint


def test_a_reading_of_groups_is_of_the_tower():
    assert str(MERGED) == "groups[tower]"
