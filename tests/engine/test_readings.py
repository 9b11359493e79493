"""Every reading against whole attention maps, keys and hidden states of a stock model."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import pytest
import torch
from cases import SPECIAL_IDS, batch
from reference import Steps, Top, cast, model_of, picture
from torch.utils.flop_counter import FlopCounterMode
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from biaskit.engine.attention import logit_rows, record_attention
from biaskit.engine.calls import Call
from biaskit.engine.image_encoder import encode_once
from biaskit.engine.prune import prune
from biaskit.engine.recorder import mean_of_rows
from biaskit.engine.tower import _of_patches, _pieces, tower_flops
from biaskit.errors import BiaskitError, ModelError
from biaskit.families.checkpoints.tiny import TINY, tiny_model
from biaskit.families.checkpoints.tower import tower_dims
from biaskit.pruners.readings import EMBEDS, HIDDEN, NAMES, Reading
from biaskit.select.keep import Keep

K = 3
EAGER = ["llava-1.5", "llava-onevision", "qwen2.5-vl", "qwen3-vl", "internvl-qwen2", "idefics3"]  # every kind of tower once
# in float32, kernels of two implementations differ by more than a reading
MODELS = [(name, case, "sdpa", torch.float64) for name in TINY for case in ("padded", "several")]
MODELS += [(name, "padded", "eager", torch.float32) for name in EAGER if name in TINY]
CLOSE = {"atol": 1e-5, "rtol": 1e-5}


@dataclass(frozen=True)
class Looks(Top):
    """Remembers what it sees, and keeps the first tokens."""

    readings: frozenset = frozenset()
    at: tuple = ((K, 5),)
    seen: list = field(default_factory=list)

    @property
    def needs(self):
        return self.readings

    def stages(self):
        return Steps(at=self.at).stages()

    def select(self, signals, budget):
        self.seen.append(signals)
        return Keep(torch.arange(budget))


def seen_by(model, inputs, *readings, **options):
    looks = Looks(readings=frozenset(readings), **options)
    with torch.no_grad(), prune(model, looks):
        model(**inputs, use_cache=True)
    assert len(looks.seen) == len(inputs["input_ids"]) * len(looks.at), "every sample at every stage"
    return looks.seen


@cache
def several_images(name):
    """A left-padded batch: one sample with two images, one with one."""
    model, processor, family = model_of(name)
    sizes = [(448, 224), (224, 224), (224, 448)] if "internvl" in name else [(150, 120), (120, 200), (200, 90)]
    first, second, third = (picture(*size, seed=seed) for seed, size in enumerate(sizes))
    return family.prepare(processor, model.config, [[first, second], [third]], ["what?", "hello, what is in the picture?"]).inputs


def inputs_of(name, case):
    return several_images(name) if case == "several" else batch(name, "ragged")


STOCK: dict = {}


def logits_of(module, call, tile, rows):
    """[heads, rows, S] of one sample or tile, in float64, −inf where a key is hidden: whole maps of all layers would fill the memory."""
    query, key, mask, scaling = call
    grouped = key[tile].repeat_interleave(query.shape[1] // key.shape[1], 0).double()
    rows = torch.arange(query.shape[2])[rows]
    logits = query[tile][:, rows].double() @ grouped.mT * scaling
    if mask is None:
        return logits.masked_fill(torch.arange(key.shape[2]) > rows[:, None], -torch.inf) if module.is_causal else logits
    shown = mask[min(tile, len(mask) - 1), 0][rows, : key.shape[2]]
    return logits.masked_fill(~shown if shown.dtype == torch.bool else shown < -1e30, -torch.inf)


@pytest.fixture
def stock(monkeypatch):
    """Run a stock model and write down what each attention module and decoder layer was given, and what each block of the tower made."""

    def run(name, inputs, attention, dtype):
        key = name, id(inputs), attention
        if key in STOCK:
            return STOCK[key]
        model = model_of(name, attention, dtype)[0]
        calls, hidden = {}, {}

        def spied(original):
            def spy(module, query, key, value, attention_mask, *args, **kwargs):
                calls.setdefault(module, []).append((query.clone(), key.clone(), attention_mask, kwargs["scaling"]))
                return original(module, query, key, value, attention_mask, *args, **kwargs)

            return spy

        if attention == "sdpa":
            monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, "sdpa", spied(ALL_ATTENTION_FUNCTIONS["sdpa"]))
        else:
            for file in {type(module).__module__ for module in model.modules()}:
                if hasattr(sys.modules[file], "eager_attention_forward"):
                    monkeypatch.setattr(sys.modules[file], "eager_attention_forward", spied(sys.modules[file].eager_attention_forward))

        def kept(module, args, out):
            hidden[module] = out[0] if isinstance(out, tuple) else out

        def entered(module, args, kwargs):
            hidden[module] = args[0] if args else kwargs["hidden_states"]

        handles = [block.register_forward_hook(kept) for block in tower_blocks(model)]
        handles += [layer.register_forward_pre_hook(entered, with_kwargs=True) for layer in model.get_decoder().layers]
        with torch.no_grad():
            model(**cast(inputs, dtype), use_cache=True)
        for handle in handles:
            handle.remove()
        monkeypatch.undo()
        STOCK[key] = model, calls, hidden
        return STOCK[key]

    return run


def tower_blocks(model):
    base = model.base_model
    if hasattr(base, "visual"):
        return list(base.visual.blocks)
    tower = base.vision_tower if hasattr(base, "vision_tower") else base.vision_model
    encoder = tower.transformer if hasattr(tower, "transformer") else tower.encoder
    return list(getattr(encoder, "layers", None) or encoder.layer)


def attention_module(block):
    return next(getattr(block, name) for name in ("self_attn", "attn", "attention") if hasattr(block, name))


def joined(maps, heads):
    """[heads, …] → […] by loops over heads."""
    if heads == "each":
        return maps
    total = maps[0].clone()
    for one in maps[1:]:
        total = torch.maximum(total, one) if heads == "max" else total + one
    return total / len(maps) if heads == "mean" else total


def over_queries(reading, logits, rows):
    """The mean over some queries of a whole map [heads, S, S]."""
    values = logits[:, rows]
    if reading.what == "attention":
        return joined(values.softmax(-1), reading.heads).mean(-2)
    values = joined(values, reading.heads)
    finite = values > -torch.inf
    mean = torch.where(finite, values, 0).sum(-2) / finite.sum(-2).clamp(min=1)
    return torch.where(finite.any(-2), mean, -torch.inf)


DECODER = [
    Reading(what, queries=queries, heads="max") for what in ("attention", "logits") for queries in ("last", "text", "visual", "mean")
]
DECODER += [Reading("attention", queries=queries) for queries in ("question", "null")]
DECODER += [Reading("attention", layer=0, queries="null"), Reading("logits", layer=-2, queries="question", heads="each")]
DECODER += [Reading("attention", queries="visual", heads=heads) for heads in ("sum", "each")]
DECODER += [Reading("attention", layer=0), Reading("attention", layer=0, queries="text"), Reading("logits", layer=0, heads="each")]
DECODER += [Reading("attention", layer=-2, heads="each"), Reading("logits", layer=-3, queries="text")]
DECODER += [Reading("attention", queries="text", tokens="text"), Reading("keys", heads="mean"), Reading("keys", layer=0, heads="each")]
DECODER += [Reading("hidden", layer=-2), Reading("hidden", layer=-3, tokens="text"), Reading("hidden", "projector", tokens="text"), *NAMES]


@pytest.mark.parametrize(("name", "case", "attention", "dtype"), MODELS, ids=str)
def test_readings_of_the_decoder(name, case, attention, dtype, stock):
    inputs = inputs_of(name, case)
    plain, calls, hidden = stock(name, inputs, attention, dtype)
    seen = seen_by(model_of(name, attention, dtype)[0], cast(inputs, dtype), *DECODER)
    embeds = embeds_of(plain, cast(inputs, dtype))
    layers = plain.get_decoder().layers
    assert len(seen) == 2
    for b, signals in enumerate(seen):
        valid = inputs["attention_mask"][b].bool()
        visual = torch.from_numpy(signals.layout.positions)
        text = valid.clone()
        text[visual] = False
        text = text.nonzero()[:, 0]
        assert torch.equal(signals.text_positions, text)
        assert torch.equal(signals.prompt_ids, inputs["input_ids"][b])
        question = text[text > visual.max()]
        rows = {
            "question": question,
            "null": question[:1],
            "last": [len(valid) - 1],
            "text": text,
            "visual": visual,
            "mean": valid.nonzero()[:, 0],
        }
        for reading in DECODER:
            at = visual if reading.tokens == "visual" else text
            module = layers[K + reading.layer].self_attn if reading.at == "decoder" else None
            if reading.rows:
                logits = logits_of(module, calls[module][0], b, rows[reading.queries])
                expected = over_queries(reading, logits, slice(None))[..., at]
            elif reading.what == "keys":
                expected = joined(calls[module][0][1][b], reading.heads)[..., at, :]
            elif reading.at == "projector":
                expected = embeds[b, at]
            else:
                expected = hidden[layers[K + reading.layer + 1]][b, at]  # DeepStack adds features between the layers
            torch.testing.assert_close(
                signals[reading], expected.to(signals[reading].dtype), **CLOSE, msg=lambda text, r=reading: f"{r}: {text}"
            )


def close(reading, found, expected):
    torch.testing.assert_close(found, expected.to(found.dtype), **CLOSE, msg=lambda text: f"{reading}: {text}")


def embeds_of(model, inputs):
    got = []
    handle = model.get_decoder().register_forward_pre_hook(
        lambda module, args, kwargs: got.append(kwargs["inputs_embeds"]), with_kwargs=True
    )
    with torch.no_grad():
        model(**inputs)
    handle.remove()
    return got[0]


@pytest.mark.parametrize("name", ["llava-1.5", "llava-next", "qwen3-vl", "internvl-qwen2"])
def test_the_layer_about_to_run_after_an_earlier_stage(name):
    """What layer 4 will attend to, read before it runs on a sequence that was narrowed at layer 1."""
    model, inputs = model_of(name, dtype=torch.float32)[0], batch(name, "ragged")
    reading = Reading("attention", layer=0)
    last = seen_by(model, inputs, reading, at=((1, 9), (4, 3)))[2:]
    looks = Looks(readings=frozenset(), at=((1, 9),))
    with torch.no_grad(), prune(model, looks), record_attention(model, [4]) as found:
        model(**inputs, use_cache=True)
    row = found[4]
    for b, signals in enumerate(last):
        valid = inputs["attention_mask"][b].bool().numpy()
        whole = looks.seen[b].layout.positions
        left = np.setdiff1d(np.flatnonzero(valid), whole[9:])
        padding = row.shape[1] - len(left)
        at = padding + np.searchsorted(left, signals.layout.positions)
        assert len(signals) == 9
        torch.testing.assert_close(signals[reading], row[b, at], **CLOSE)


def test_before_the_language_model():
    """At K = 0 the layer about to run is the first one, and nothing else of the decoder exists."""
    model, inputs = model_of("llava-1.5", dtype=torch.float32)[0], batch("llava-1.5", "ragged")
    reading = Reading("attention", layer=0)
    seen = seen_by(model, inputs, reading, EMBEDS, at=((0, 5),))
    with torch.no_grad(), record_attention(model, [0]) as found:
        model(**inputs)
    for b, signals in enumerate(seen):
        torch.testing.assert_close(signals[reading], found[0][b, torch.from_numpy(signals.layout.positions)], **CLOSE)
    with pytest.raises(BiaskitError, match=r"Looks reads attention\[decoder, layer=-2\]"):
        seen_by(model, inputs, Reading("attention", layer=-2), at=((1, 5),))


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("form", ["causal", "bool", "additive", "padding", "whole"])
def test_rows_of_every_form_of_mask(form, softcap, monkeypatch):
    """Against the plain formula, and block by block."""
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 4, 7, 8, generator=generator).double(), torch.randn(2, 2, 9, 8, generator=generator).double()
    padding = torch.tensor([[True] * 7, [False, False, *[True] * 5]])
    allowed = torch.ones(7, 7, dtype=torch.bool).tril()[None, None].expand(2, 1, 7, 7)
    if form in ("bool", "additive", "padding"):
        allowed = allowed & padding[:, None, None]
    if form == "whole":
        allowed = torch.ones(2, 1, 7, 7, dtype=torch.bool)
    mask = {"bool": allowed, "padding": padding.long(), "additive": torch.where(allowed, 0.0, torch.finfo(torch.float32).min)}.get(form)
    call = Call(query, key, mask, causal=form != "whole", scaling=0.3, softcap=softcap)
    logits = query @ key[:, :, :7].repeat_interleave(2, 1).mT * 0.3
    logits = logits if softcap is None else torch.tanh(logits / softcap) * softcap
    logits = logits.masked_fill(~allowed, -torch.inf)
    rows = torch.tensor([6, 2, 4])
    torch.testing.assert_close(logit_rows(call, rows), logits[:, :, rows], atol=1e-12, rtol=0)
    torch.testing.assert_close(logit_rows(call), logits[:, :, -1:], atol=1e-12, rtol=0)
    of_each = torch.tensor([[6, 1], [2, 4]])
    expected = torch.stack([logits[b][:, mine] for b, mine in enumerate(of_each)])
    torch.testing.assert_close(logit_rows(call, of_each), expected, atol=1e-12, rtol=0)
    weight = torch.tensor([[True, False, True], [True, True, True]])
    for cells in (1 << 24, 1):
        monkeypatch.setattr("biaskit.engine.recorder._CELLS", {"cpu": cells})
        for what, heads in (("attention", "max"), ("logits", "mean"), ("attention", "each"), ("logits", "each")):
            reading = Reading(what, queries="text", heads=heads)
            found = mean_of_rows(call, reading, rows, weight)
            for b in range(2):
                expected = over_queries(reading, logits[b], [int(row) for row, on in zip(rows, weight[b], strict=True) if on])
                torch.testing.assert_close(found[b], expected, atol=1e-12, rtol=0)


TOWER = [
    Reading(what, "tower", layer=layer, queries=queries, heads=heads)
    for what in ("attention", "logits")
    for layer, queries, heads in ((-2, "mean", "mean"), (-1, "mean", "max"), (0, "mean", "each"), (-1, "mean", "sum"))
]
TOWER += [Reading("keys", "tower", layer=-2), Reading("keys", "tower", layer=-1, heads="each")]
TOWER += [Reading("hidden", "tower", layer=0), Reading("hidden", "tower", layer=-2)]
CLS = [Reading("attention", "tower", layer=-2, queries="cls"), Reading("logits", "tower", layer=-1, queries="cls", heads="each")]
HAS_CLS = {name: name in ("llava-1.5", "llava-next", "llava-next-video") or "internvl" in name for name in TINY}


def of_patches(reading, model, calls, hidden, *, cls):
    """[P, …], or [heads, P, …], of the whole batch in the tower's order."""
    block = tower_blocks(model)[reading.layer]
    if reading.what == "hidden":
        found = hidden[block]
        return found[:, int(cls) :].flatten(0, 1) if found.ndim == 3 else found
    pieces = []
    module = attention_module(block)
    for call in calls[module]:
        for tile in range(len(call[1])):
            if reading.what == "keys":
                one = joined(call[1][tile], reading.heads)[..., int(cls) :, :]
            else:
                logits = logits_of(module, call, tile, [0] if reading.queries == "cls" else slice(None))
                one = over_queries(reading, logits, slice(None))[..., int(cls) :]
            pieces.append(one)
    return torch.cat(pieces, reading.axis)


def folded(reading, patches, index):
    """Averages over the patches behind each token, token by token."""
    moved = patches.movedim(reading.axis, 0)
    rows = torch.zeros(len(index), *moved.shape[1:], dtype=moved.dtype)
    for token, behind in enumerate(index.tolist()):
        real = [patch for patch in behind if patch >= 0]
        for patch in real:
            rows[token] += moved[patch] / len(real)
    return rows.movedim(0, reading.axis)


@pytest.mark.parametrize(("name", "case", "attention", "dtype"), MODELS, ids=str)
def test_readings_of_the_tower(name, case, attention, dtype, stock):
    inputs, readings = inputs_of(name, case), TOWER + (CLS if HAS_CLS[name] else [])
    plain, calls, hidden = stock(name, inputs, attention, dtype)
    model, _, family = model_of(name, attention, dtype)
    inputs = cast(inputs, dtype)
    ran = []
    handle = tower_blocks(model)[0].register_forward_hook(lambda *_: ran.append(1))
    with torch.no_grad():
        model(**inputs)
    alone = len(ran)
    seen = seen_by(model, inputs, *readings, at=((0, 5),))
    handle.remove()
    assert len(ran) == 2 * alone, "the tower ran as often as without a pruner"
    indices = family.patch_index(model.config, inputs, family.layout(model.config, inputs))
    first = 0
    for signals, patches in zip(seen, indices, strict=True):
        for reading in readings:
            whole = of_patches(reading, plain, calls, hidden, cls=HAS_CLS[name]).movedim(reading.axis, 0)[first : first + len(patches)]
            whole = whole.to(signals[reading].dtype)
            mine = (whole if patches.order is None else whole[patches.order]).movedim(0, reading.axis)
            for tile, size in zip(signals.patches(reading), patches.tiles, strict=True):
                assert tile.shape[reading.axis] == size
            close(reading, torch.cat(signals.patches(reading), reading.axis), mine)
            close(reading, signals[reading], folded(reading, mine, patches.index))
        first += len(patches)
    assert first == len(of_patches(Reading("hidden", "tower"), plain, calls, hidden, cls=HAS_CLS[name]))


@pytest.mark.parametrize("case", ["padded", "several"])
@pytest.mark.parametrize("name", TINY)
def test_patches_behind_a_token_make_its_embedding(name, case):
    """The projector turns the features of exactly these patches, in this order, into the token's row of the input embeddings."""
    model, inputs = model_of(name, dtype=torch.float32)[0], inputs_of(name, case)
    layer = getattr(model.config, "vision_feature_layer", -1)
    hidden = Reading("hidden", "tower", layer=layer)
    for signals in seen_by(model, inputs, hidden, EMBEDS, at=((0, 5),)):
        index = signals.patch_index.index
        real = np.flatnonzero(index.min(1) >= 0)
        assert len(real) == len(index) - sum(p.rows for p in signals.layout.planes if p.name == "newline")
        features = torch.cat(signals.patches(hidden))[torch.from_numpy(index[real])]
        if name == "llava-onevision" and index.shape[1] == 4:
            continue
        rows = signals.project(features)
        torch.testing.assert_close(rows.detach(), signals[EMBEDS][real], **CLOSE)
        same = signals.project(features[:, :1].expand_as(features))
        torch.testing.assert_close(signals.project(features[:, 0]), same)


def test_a_canvas_that_was_shrunk_has_the_patches_it_was_interpolated_from():
    """LLaVA-OneVision: tokens depend on the patches of the index and on no others."""
    name = "llava-onevision"
    model, processor, family = model_of(name)
    image = picture(900, 900)
    inputs = family.prepare(processor, model.config, [[image]], ["hi"]).inputs
    (patches,) = family.patch_index(model.config, inputs, family.layout(model.config, inputs))
    assert patches.index.shape[1] == 4
    base = model.base_model
    features = torch.zeros(len(patches), 1, dtype=torch.float64)
    random = np.random.default_rng(0)
    for lit in random.choice(np.arange(81, len(patches)), 20, replace=False):
        features.zero_()[lit] = 1
        packed, _ = base.pack_image_features([features.reshape(-1, 81, 1)], inputs["image_sizes"], None, "anyres_max_9")
        canvas = patches.index[81:]
        body = canvas[canvas.min(1) >= 0]
        touched = np.flatnonzero(packed[0][81:, 0].numpy() > 1e-9)
        assert set(touched) <= set(np.flatnonzero((body == lit).any(1)))
        certain = [i for i, behind in enumerate(body) if (behind == lit).sum() >= 1]
        assert len(touched) and set(touched) <= set(certain)


LIT = {"llava-1.5": (336, 336, 14), "llava-next": (112, 112, 14), "llava-onevision": (126, 126, 14), "qwen2-vl": (168, 224, 14)}
LIT |= {"qwen2.5-vl": (168, 224, 14), "qwen3-vl": (128, 192, 16), "internvl-qwen2": (224, 224, 14), "internvl-llama": (224, 224, 14)}
LIT |= {"internvl-qwen3": LIT["internvl-qwen2"], "qwen3-vl-moe": LIT["qwen3-vl"], "llava-next-video": LIT["llava-next"]}
LIT |= {"glm4v": LIT["qwen2-vl"], "glm46v": LIT["qwen2-vl"], "aya-vision": (112, 112, 14), "mistral3": LIT["qwen2-vl"]}
LIT |= {"qwen2.5-omni": LIT["qwen2.5-vl"], "idefics3": (112, 112, 14), "smolvlm": (112, 112, 14), "gemma3": (224, 224, 14)}
TILED = {"idefics3": 2, "smolvlm": 2}  # tiles along the sides of the image: the first one is lit


@pytest.mark.parametrize("name", TINY)
def test_patches_are_counted_row_by_row(name):
    """A white square on a black image lights the patch that the numbering says, and no other one, before the first block."""
    from PIL import Image

    model, processor, family = model_of(name, dtype=torch.float32)
    height, width, side = LIT[name]
    rows, cols = height // side, width // side
    entering = []
    handle = tower_blocks(model)[0].register_forward_pre_hook(lambda module, args: entering.append(args[0]))

    def first(lit):
        entering.clear()
        pixels = np.zeros((height * TILED.get(name, 1), width * TILED.get(name, 1), 3), np.uint8)
        if lit is not None:
            pixels[lit[0] * side : (lit[0] + 1) * side, lit[1] * side : (lit[1] + 1) * side] = 255
        inputs = family.prepare(processor, model.config, [[Image.fromarray(pixels)]], ["hi"]).inputs
        with torch.no_grad():
            model(**inputs)
        found = entering[0]
        found = found[:, int(HAS_CLS[name]) :].flatten(0, 1) if found.ndim == 3 else found
        (patches,) = family.patch_index(model.config, inputs, family.layout(model.config, inputs))
        return (found if patches.order is None else found[patches.order])[: rows * cols], patches

    dark, patches = first(None)
    assert patches.tiles[0] == rows * cols
    for row, col in ((0, 0), (0, cols - 1), (rows - 1, 2), (rows // 2, cols // 2)):
        changed = (first((row, col))[0] - dark).abs().amax(1) > 1e-3
        assert changed.nonzero()[:, 0].tolist() == [row * cols + col]
    handle.remove()


@pytest.mark.parametrize("name", ["llava-1.5", "llava-onevision", "qwen2.5-vl", "internvl-qwen2"])
def test_images_encoded_once_are_seen_by_every_pruner(name):
    model, inputs = model_of(name, dtype=torch.float32)[0], batch(name, "ragged")
    mean, keys = Reading("attention", "tower", queries="mean"), Reading("keys", "tower")
    expected = seen_by(model, inputs, mean, keys, at=((0, 5),))
    ran = []
    handle = tower_blocks(model)[0].register_forward_hook(lambda *_: ran.append(1))

    def same(*readings, passes):
        ran.clear()
        for wanted, signals in zip(expected, seen_by(model, inputs, *readings, at=((0, 5),)), strict=True):
            assert all(torch.equal(wanted[reading], signals[reading]) for reading in readings)
            assert set(signals.readings) == set(readings), "a pruner sees what it asked for alone"
        assert len(ran) == passes

    with encode_once(model, [mean, HIDDEN]):
        same(mean, passes=1)
        same(mean, passes=0)
        seen_by(model, inputs, HIDDEN)
        same(mean, keys, passes=1)  # keys are new
        same(keys, passes=0)
    with encode_once(model):
        seen_by(model, inputs, HIDDEN)
        same(mean, passes=1)
        same(mean, passes=0)
    handle.remove()


@pytest.mark.parametrize("name", TINY)
def test_beams_and_generate_see_the_same(name):
    """generate() encodes ahead of the forward pass in newer releases, and repeats rows for returned sequences."""
    model, inputs = model_of(name, dtype=torch.float32)[0], batch(name, "ragged")
    reading = Reading("attention", "tower", queries="mean")
    expected = seen_by(model, inputs, reading, at=((0, 5),))
    # tiles, and Qwen2.5-Omni's patches, are not expanded rightly by every release
    options = {} if name.startswith(("internvl", "aya", "qwen2.5-omni")) else {"num_return_sequences": 2, "do_sample": True}
    looks = Looks(readings=frozenset({reading}), at=((0, 5),))
    with torch.no_grad(), prune(model, looks):
        model.generate(**inputs, max_new_tokens=2, suppress_tokens=SPECIAL_IDS, **options)
    assert len(looks.seen) == 2
    for wanted, signals in zip(expected, looks.seen, strict=True):
        torch.testing.assert_close(signals[reading], wanted[reading], **CLOSE)


@pytest.mark.parametrize("name", ["llava-onevision", "qwen2-vl", "qwen2.5-vl", "qwen3-vl"])
def test_towers_without_a_cls_token(name):
    with pytest.raises(ModelError, match="has no CLS token") as found, prune(model_of(name)[0], Looks(readings=frozenset(CLS[:1]))):
        pass
    assert "queries='mean'" in found.value.hint
    with pytest.raises(ModelError, match="has no CLS token"), encode_once(model_of(name)[0], CLS):
        pass


def test_blocks_that_the_tower_lacks():
    reading = Reading("hidden", "tower", layer=7)
    with pytest.raises(ModelError, match="blocks 0 … 2"), prune(model_of("llava-1.5")[0], Looks(readings=frozenset({reading}))):
        pass


@pytest.mark.parametrize("name", TINY)
def test_nothing_stays_on_the_model(name):
    from test_prune_limits import traces

    model, inputs = model_of(name, dtype=torch.float32)[0], batch(name, "ragged")
    with torch.no_grad():
        plain = model(**inputs).logits
    before = traces(model)
    seen_by(model, inputs, *TOWER, *DECODER)
    with pytest.raises(RuntimeError, match="mine"), encode_once(model, TOWER), prune(model, Looks(readings=frozenset(TOWER))):
        raise RuntimeError("mine")
    assert traces(model) == before and dict(ALL_ATTENTION_FUNCTIONS._local_mapping) == before[2]
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, plain)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"what": "values"}, "what='values'"),
        ({"what": "attention", "at": "tower"}, "no queries='last'"),
        ({"what": "attention", "queries": "cls"}, "no queries='cls'"),
        ({"what": "attention", "layer": 1}, r"layer K \+ 1"),
        ({"what": "hidden", "layer": 0}, r"layer K \+ 0"),
        ({"what": "hidden", "heads": "max"}, "heads='max'"),
        ({"what": "keys", "queries": "text"}, "queries='text'"),
        ({"what": "keys", "at": "projector"}, "keys of the projector"),
        ({"what": "attention", "at": "projector"}, "projector has no attention"),
        ({"what": "hidden", "at": "tower", "tokens": "text"}, "text tokens of the vision tower"),
    ],
)
def test_readings_that_do_not_exist(wrong, text):
    with pytest.raises(BiaskitError, match=text) as found:
        Reading(**wrong)
    assert found.value.hint


def test_signals_say_what_was_not_recorded():
    signals = seen_by(model_of("llava-1.5", dtype=torch.float32)[0], batch("llava-1.5", "single"), HIDDEN)[0]
    with pytest.raises(BiaskitError, match="embeds was not recorded"):
        signals[EMBEDS]
    with pytest.raises(BiaskitError, match="hidden is not a reading of the vision tower"):
        signals.patches(HIDDEN)


def test_sequences_that_are_packed_into_one_call_are_read_apart():
    """Flash attention gets the images or windows of Qwen's tower in one call, with their cumulative lengths."""
    generator = torch.Generator().manual_seed(0)
    query, key = (torch.randn(1, 2, 9, 4, generator=generator) for _ in range(2))
    packed = Call(query, key, causal=False, lengths=torch.tensor([0, 4, 9]))
    pieces = list(_pieces(packed))
    for reading in (Reading("attention", "tower", queries="mean"), Reading("logits", "tower", queries="mean", heads="each")):
        found = torch.cat([_of_patches(reading, piece, has_cls=False) for piece in pieces], reading.axis)
        logits = query[0] @ key[0].mT / 2
        parts = [over_queries(reading, logits[:, start:end, start:end], slice(None)) for start, end in ((0, 4), (4, 9))]
        torch.testing.assert_close(found, torch.cat(parts, -1))
    assert torch.equal(
        torch.cat([_of_patches(Reading("keys", "tower", heads="each"), piece, has_cls=False) for piece in pieces], 1), key[0]
    )


@pytest.mark.parametrize("layer", [-1, 0])
@pytest.mark.parametrize("queries", ["question", "null"])
@pytest.mark.parametrize("position", [0, 1])
def test_a_prompt_that_ends_with_its_image(position, queries, layer):
    """It has no rows after the image: of a batch, the sample is named; alone, nothing is left to average."""
    model = model_of("llava-1.5")[0]
    inputs = {name: x[1:] if position == 0 else x for name, x in cast(batch("llava-1.5", "padded"), torch.float64).items()}
    ids, image = inputs["input_ids"].clone(), model.config.image_token_id
    end = int((ids[position] == image).nonzero().max()) + 1
    ids[position] = torch.cat([ids[position, end:], ids[position, :end]])
    inputs |= {"input_ids": ids, "attention_mask": torch.ones_like(ids) if position == 0 else inputs["attention_mask"]}
    reading = Reading("attention", layer=layer, queries=queries)
    with pytest.raises(ModelError, match=f"sample {position} of the batch ends with its image.*queries='{queries}'") as caught:
        seen_by(model, inputs, reading)
    assert "put the question after the image" in caught.value.hint
    last = Reading("attention", layer=layer)
    assert all(bool((signals[last] > 0).any()) for signals in seen_by(model, inputs, last))


def test_a_prompt_without_text():
    model = model_of("llava-1.5")[0]
    inputs = cast(batch("llava-1.5", "single"), torch.float64)
    ids = inputs["input_ids"][inputs["input_ids"] == model.config.image_token_id][None]
    with pytest.raises(ModelError, match="sample 0 of the batch has no text"):
        seen_by(model, inputs | {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, Reading("attention", queries="text"))


def test_the_formula_of_a_tower_counts_its_matrix_products():
    """Against torch's own count of a forward pass, patch embedding left out."""
    model, _, family = tiny_model("llava-1.5")
    tower, side = model.model.vision_tower, model.config.vision_config.image_size
    implementation = tower.config._attn_implementation
    tower.set_attn_implementation("eager")
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            tower(torch.zeros(2, 3, side, side))
    finally:
        tower.set_attn_implementation(implementation)
    counts = counter.get_flop_counts()["Global"]
    products = sum(count for name, count in counts.items() if "convolution" not in str(name)) / 2
    dims, patches = tower_dims(family.tower(model)), (side // model.config.vision_config.patch_size) ** 2
    needs = {Reading("attention", "tower", layer=-2, queries="cls"), Reading("logits", "tower", layer=-2, queries="cls", heads="each")}
    needs |= {Reading("hidden", "tower", layer=-2), Reading("attention", "tower", layer=0, queries="mean")}
    assert tower_flops(dims, [patches] * 2, needs) == (products, 2 * ((patches + 1) + (patches + 1) ** 2) * dims.width)
    assert tower_flops(dims, [patches] * 2, {HIDDEN})[1] == 0
