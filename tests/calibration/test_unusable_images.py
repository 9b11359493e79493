"""One image that cannot be used costs that image: also where it is the model that fails on it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from poisoned import MARK, Poisonous, poisoned
from processes import together

from biaskit import calibrate
from biaskit.errors import CalibrationError
from biaskit.families.checkpoints.load import Loaded
from biaskit.families.checkpoints.tiny import tiny_model
from biaskit.images.base import View, order
from biaskit.images.folder import FolderSource
from biaskit.images.generated import GeneratedSource

REASON = "its attention is not finite at layers 1, 4 in float32"


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_an_image_with_attention_that_is_not_finite_is_skipped_and_named(batch_size):
    """The next image of the order takes its place; those beside it in the batch count as ever."""
    unit, source = poisoned(), Poisonous(14, [])
    queue = order(source, 0).tolist()
    source.bad = {queue[2], queue[8]}  # of the first eight, and of the first replacement
    seen = []
    prior = calibrate(unit, source, samples=8, workers=0, batch_size=batch_size, report=lambda p: seen.extend(p.skipped))
    assert prior.n_images == 8 and prior.meta["n_skipped"] == "2"
    assert json.loads(prior.meta["skipped"]) == [[source.identify(queue[2]), REASON], [source.identify(queue[8]), REASON]]
    assert [(skip.slot, skip.index) for skip in seen] == [(2, queue[2]), (2, queue[8])]
    used = [*queue[:2], queue[9], *queue[3:8]]
    clean = calibrate(
        unit, View(GeneratedSource(14, 0), [used[i] for i in np.argsort(order(Poisonous(8, []), 0))]), workers=0, batch_size=batch_size
    )
    np.testing.assert_allclose(prior.planes["image"].mean, clean.planes["image"].mean, rtol=1e-6)
    np.testing.assert_array_equal(prior.planes["image"].group_count, clean.planes["image"].group_count)


@pytest.mark.parametrize("per_head", [False, True])
def test_overflow_inside_the_model_is_found_too(per_head):
    """A hook makes one row of one batch infinite, as half precision would; that image alone is skipped."""
    model, processor, family = tiny_model("qwen2.5-vl")
    calls = [0]

    def overflow(module, args, out):
        calls[0] += 1
        if calls[0] == 2:
            out = out.clone()
            out[1] = float("inf")
        return out

    hook = model.get_decoder().layers[0].register_forward_hook(overflow)
    prior = calibrate(
        Loaded(model, processor, family, "m", "x"), GeneratedSource(10), samples=6, workers=0, batch_size=2, layers=1, per_head=per_head
    )
    hook.remove()
    source = GeneratedSource(10)
    assert prior.n_images == 6
    assert json.loads(prior.meta["skipped"]) == [
        [source.identify(int(order(source, 0)[3])), "its attention is not finite at layer 1 in float32"]
    ]


def test_too_many_stop_with_a_hint_that_helps(tmp_path):
    unit, source, out = poisoned(), Poisonous(20, range(20)), tmp_path / "p.safetensors"
    with pytest.raises(CalibrationError, match=r"3 images could not be used, the last one .*: its attention is not finite") as caught:
        calibrate(unit, source, samples=8, workers=0, batch_size=1, max_skips=2, out=out)
    assert "--dtype bfloat16" in caught.value.hint and "--max-skips" in caught.value.hint
    assert Path(f"{out}.partial").exists()
    source.bad = set()
    calibrate(unit, source, samples=8, workers=0, batch_size=1, max_skips=2, out=out)
    assert out.read_bytes() == calibrate(unit, Poisonous(20, []), samples=8, workers=0, batch_size=1).to_bytes()


@pytest.mark.parametrize("stop", [1, 3, 5, 8])
def test_stopped_and_gone_on_with_is_the_same_to_the_byte(tmp_path, stop):
    unit, out = poisoned(), tmp_path / "p.safetensors"
    queue = order(Poisonous(14, []), 0).tolist()
    source = Poisonous(14, [queue[1], queue[4], queue[9]])
    options = {"samples": 8, "workers": 0, "batch_size": 2, "out": out}

    def report(progress):
        if progress.done >= stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        calibrate(unit, source, report=report, **options)
    calibrate(unit, source, **options)
    assert out.read_bytes() == calibrate(unit, source, samples=8, workers=0, batch_size=2).to_bytes()


def test_two_processes_skip_the_same_images(tmp_path):
    queue = order(Poisonous(14, []), 0).tolist()
    unit, bad, out = poisoned(), [queue[2], queue[3], queue[10]], tmp_path / "two.safetensors"
    options = {"samples": 9, "workers": 0, "batch_size": 2}
    assert together(2, lambda rank: calibrate(unit, Poisonous(14, bad), out=out, **options)) == [0, 0]
    one = calibrate(unit, Poisonous(14, bad), **options)
    assert one.meta["n_skipped"] == "3" and one.n_images == 9
    assert out.read_bytes() == one.to_bytes()


def test_one_of_each_kind_costs_three_images(tmp_path):
    """Not finite in the model, gone, and no picture at all; a 16-bit TIFF is a picture, and counts."""
    rng = np.random.default_rng(0)
    for number in range(16):
        Image.fromarray(rng.integers(0, 255, (40, 60, 3), dtype=np.uint8)).save(tmp_path / f"{number:02}.png")
    source = FolderSource(tmp_path)
    names = [source.identify(int(index)) for index in order(source, 0)[:12]]
    nan, gone, page, deep = names[1], names[4], names[6], names[9]
    picture = Image.open(tmp_path / nan)
    picture.putpixel((0, 0), MARK)
    picture.save(tmp_path / nan)
    (tmp_path / gone).unlink()
    (tmp_path / page).write_text("<!DOCTYPE html><html><body>404 Not Found</body></html>")
    Image.fromarray(rng.integers(0, 65535, (40, 60), dtype=np.uint16)).save(tmp_path / deep, format="TIFF")
    prior = calibrate(poisoned(), source, samples=12, workers=0, batch_size=4, layers=1)
    skipped = dict(json.loads(prior.meta["skipped"]))
    assert prior.n_images == 12
    assert set(skipped) == {nan, gone, page}
    assert "not finite" in skipped[nan]
    assert "is not an image (no format that PIL reads begins with b'<!DOCTYP')" in skipped[page]
    assert torch.isfinite(torch.from_numpy(prior.planes["image"].mean.copy())).all()
