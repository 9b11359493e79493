"""Calibration against a naive loop; batches, workers, prompts; skips and replacements; resume after kills."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
import time
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from biaskit.calibration.run import PROMPT, calibrate
from biaskit.engine.prune import prune
from biaskit.errors import BiaskitError, CalibrationError, ImageSkipped, ModelError, PriorError, SourceError
from biaskit.families.checkpoints.load import Loaded, load_model
from biaskit.families.checkpoints.tiny import TINY, tiny_inputs, tiny_model
from biaskit.images.base import View, order
from biaskit.images.generated import GeneratedSource
from biaskit.prior.resample import resample
from biaskit.prior.value import Prior
from biaskit.pruners import get_pruner
from biaskit.pruners.attention import WORDS
from biaskit.validation.ask.methods import Grid


class Pictures(View):
    """Generated pictures, some of which cannot be read."""

    def __init__(self, n, bad=(), delay=0.0):
        super().__init__(GeneratedSource(n, 0), range(n))
        self.bad, self.delay = set(bad), delay

    def load(self, index):
        time.sleep(self.delay)
        if index in self.bad:
            raise ImageSkipped(f"{self.identify(index)} is spoilt")
        return super().load(index)


def loaded(name, **options):
    model, processor, family = tiny_model(name, **options)
    return Loaded(model, processor, family, name, "test")


def naive(unit, source, slots, layers, prompts=(PROMPT,), rows="last"):
    """Plane → [L, rows, cols] mean, [L, …] variance, from full eager attention maps, one image at a time."""
    eager, _, _ = tiny_model(unit.name, attention="eager")
    maps: dict[str, list[np.ndarray]] = {}
    for slot, index in slots:
        prepared = unit.family.prepare(unit.processor, eager.config, [[source.load(index)]], [prompts[slot % len(prompts)]])
        with torch.no_grad():
            attentions = eager(**prepared.inputs, output_attentions=True).attentions
        (layout,) = prepared.layouts
        after = int(layout.positions[-1]) + 1
        chosen = {"last": slice(-1, None), "question": slice(after, None), "null": slice(after, after + 1)}[rows]
        found = np.stack([attentions[layer][0, :, chosen].double().mean((0, 1)).numpy()[layout.positions] for layer in layers])
        for number, plane in enumerate(layout.planes):
            folded = np.zeros((len(layers), plane.rows, plane.cols))
            for token in np.flatnonzero(layout.plane == number):
                folded[:, layout.row[token], layout.col[token]] = found[:, token] * len(layout)
            size = unit.family.canonical(eager.config)[plane.name]
            maps.setdefault(plane.name, []).append(resample(folded, *size))
    return {name: (np.mean(values, 0), np.var(values, 0, ddof=1), len(values)) for name, values in maps.items()}


@pytest.mark.parametrize("name", TINY)
def test_prior_equals_the_naive_average(name):
    unit = loaded(name)
    source = Pictures(12)
    prior = calibrate(unit, source, samples=5, layers=(0, 3), batch_size=2, workers=0)
    slots = list(enumerate(order(source, 0)[:5].tolist()))
    expected = naive(unit, source, slots, (0, 3))
    assert prior.n_images == 5
    assert set(prior.planes) == set(expected)
    for plane, (mean, var, count) in expected.items():
        stats = prior.planes[plane]
        assert stats.count == count
        np.testing.assert_allclose(stats.mean, mean, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(stats.var, var, rtol=1e-3, atol=1e-5)


UNLIKE = [
    name for name in ("llava-1.5", "qwen2.5-vl", "internvl-llama", "idefics3") if name in TINY
]  # the last asks for torchvision in 5.17


@pytest.mark.parametrize(("name", "rows"), [*product(UNLIKE, ["question", "null"]), ("llava-onevision", "question")])
def test_other_rows_are_averaged(name, rows):
    """Prompts of unlike length in one batch: left padding moves the rows of each."""
    unit = loaded(name)
    source, prompts = Pictures(12), ("What?", "Where in this picture is the small red cup?")
    prior = calibrate(unit, source, samples=2, layers=(0, 3), batch_size=2, workers=0, prompts=prompts, rows=rows)
    expected = naive(unit, source, list(enumerate(order(source, 0)[:2].tolist())), (0, 3), prompts, rows)
    assert prior.rows == prior.meta["rows"] == rows and set(prior.planes) == set(expected)
    for plane, (mean, _, _) in expected.items():
        np.testing.assert_allclose(prior.planes[plane].mean, mean, rtol=1e-4, atol=1e-5)


def test_grey_pictures_make_a_prior_of_their_own():
    """Content-free calibration: `--data grey`, then `--prior grey=FILE` and `+grey`, beside another prior."""
    unit = loaded("llava-1.5")
    priors = {name: calibrate(unit, name, samples=2, layers=(1,), workers=0) for name in ("grey", "generated")}
    assert priors["grey"].meta["source"] == "grey"
    cells = Grid(methods=("fastv+grey", "fastv+generated", "fastv"), retentions=(0.1,), priors=priors).cells(unit.model.config)
    assert [cell.label for cell in cells] == ["fastv+grey/r0.1", "fastv+generated/r0.1", "fastv/r0.1"]
    kept = []
    for cell in cells:
        with prune(unit, cell.pruner, prior=cell.prior) as pruning:
            unit.model(**tiny_inputs(unit.family, unit.processor, unit.model.config))
        kept.append(pruning.samples[0].indices.tolist())
    assert kept[0] != kept[1] != kept[2] != kept[0]


def test_rows_keep_their_heads_and_belong_to_the_state(tmp_path):
    unit, out = loaded("llava-1.5"), tmp_path / "a.safetensors"
    prior = calibrate(unit, Pictures(3), layers=(1,), per_head=True, workers=0, rows="question")
    np.testing.assert_allclose(prior.planes["image"].head_mean.mean(1), prior.planes["image"].mean, rtol=1e-5)

    def stop(progress):
        if progress.done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        calibrate(unit, Pictures(6), layers=(1,), batch_size=1, workers=0, out=out, rows="null", report=stop)
    with pytest.raises(CalibrationError, match='rows was "null", is "last"'):
        calibrate(unit, Pictures(6), layers=(1,), batch_size=1, workers=0, out=out)
    with pytest.raises(CalibrationError, match="rows is 'first'"):
        calibrate(unit, Pictures(6), rows="first")


def test_a_method_that_reads_other_rows_than_its_prior_says_so():
    unit = loaded("llava-1.5")
    prior = calibrate(unit, Pictures(2), layers=(1,), workers=0, rows="question")
    said = []
    for pruner in ("fastv", get_pruner("fastv", budget=9, rows="question"), get_pruner("fastv", budget=9, strength=0.0)):
        with prune(unit, pruner, prior=prior, say=said.append):
            unit.model(**tiny_inputs(unit.family, unit.processor, unit.model.config))
    (line,) = (line for line in said if "rows" in line)
    assert line.startswith(f"fastv reads {WORDS['last']} (rows=last), and the prior is an average of {WORDS['question']} (rows=question)")
    assert line.endswith("calibrate one with --rows last, or read rows=question")
    with pytest.raises(PriorError, match="rows is 'first'"):
        Prior(prior.planes, prior.layers, prior.visual_mass, {**prior.meta, "rows": "first"})
    assert Prior(prior.planes, prior.layers, prior.visual_mass, {"kind": "imported"}).rows is None
    assert Prior(prior.planes, prior.layers, prior.visual_mass, {}).rows == "last"


@pytest.mark.parametrize("name", ["llava-1.5", "llava-next", "qwen2.5-vl", "internvl-llama"])
@pytest.mark.parametrize(("dtype", "layers", "tolerance"), [(torch.float32, None, 1e-5), (torch.float64, "all", 1e-6)])
def test_batch_one_and_eight_give_the_same_prior(name, dtype, layers, tolerance):
    """In float32 at the preset layers; at every layer in float64, where chaos of random weights does not amplify rounding."""
    unit = loaded(name, dtype=dtype)
    source = Pictures(10)
    one, eight = (calibrate(unit, source, batch_size=size, workers=0, layers=layers) for size in (1, 8))
    for plane in one.planes:
        np.testing.assert_allclose(eight.planes[plane].mean, one.planes[plane].mean, rtol=tolerance)
        np.testing.assert_array_equal(eight.planes[plane].group_count, one.planes[plane].group_count)
    np.testing.assert_allclose(eight.visual_mass, one.visual_mass, rtol=1e-5)


def test_heads_average_to_the_mean_and_prompts_are_cycled():
    unit = loaded("llava-1.5")
    source = Pictures(8)
    prompts = ("Where is the cat?", "Is there a dog in this picture?", PROMPT)
    prior = calibrate(unit, source, samples=7, layers=(1,), per_head=True, prompts=prompts, batch_size=3, workers=0)
    stats = prior.planes["image"]
    assert stats.head_mean.shape == (1, 4, 24, 24)
    np.testing.assert_allclose(stats.head_mean.mean(1), stats.mean, rtol=1e-5)
    expected = naive(unit, source, list(enumerate(order(source, 0)[:7].tolist())), (1,), prompts)
    np.testing.assert_allclose(stats.mean, expected["image"][0], rtol=1e-4)
    assert json.loads(prior.meta["prompt"]) == list(prompts)


def test_workers_change_nothing():
    unit = loaded("qwen2.5-vl")
    source = Pictures(9, bad=[3])
    results = {calibrate(unit, source, samples=8, batch_size=2, workers=workers).to_bytes() for workers in (0, 1, 3)}
    assert len(results) == 1


def test_default_layers_and_default_samples():
    prior = calibrate(loaded("llava-1.5"), Pictures(3), workers=0)
    assert prior.layers == (1, 4)
    assert prior.n_images == 3
    assert calibrate(loaded("qwen3-vl"), Pictures(2), workers=0).layers == (1,)


def test_skipped_images_are_replaced_by_the_next_ones():
    unit = loaded("llava-1.5")
    source = Pictures(20)
    queue = order(source, 7).tolist()
    bad = [queue[1], queue[4], queue[8], queue[9]]  # two of the first eight, then both of their first replacements
    source.bad = set(bad)
    seen = []
    prior = calibrate(unit, source, samples=8, seed=7, batch_size=3, workers=0, layers=(1,), report=lambda p: seen.extend(p.skipped))
    assert prior.n_images == 8 and prior.meta["n_skipped"] == "4"
    named = json.loads(prior.meta["skipped"])
    assert {name for name, _ in named} == {source.identify(index) for index in bad} == {skip.name for skip in seen}
    assert all("is spoilt" in reason for _, reason in named)
    used = [(slot, queue[slot]) for slot in range(8) if slot not in (1, 4)] + [(1, queue[10]), (4, queue[11])]
    np.testing.assert_allclose(prior.planes["image"].mean, naive(unit, source, used, (1,))["image"][0], rtol=1e-4)


def test_a_picture_the_processor_refuses_is_skipped():
    class Ribbon(Pictures):
        def load(self, index):
            return Image.new("RGB", (20 * 250, 20)) if index == 2 else super().load(index)

    prior = calibrate(loaded("qwen2.5-vl"), Ribbon(6), samples=5, batch_size=6, workers=0)
    assert prior.n_images == 5
    assert json.loads(prior.meta["skipped"])[0][1].startswith("the processor refuses 5000×20 pixels: ValueError: absolute aspect ratio")


def test_a_source_that_runs_dry(tmp_path):
    source = Pictures(8, bad=range(3))
    with pytest.raises(CalibrationError, match="8 images wanted, 5 of 8 are usable"):
        calibrate(loaded("llava-1.5"), source, samples=8, workers=0, out=tmp_path / "p.safetensors")
    assert calibrate(loaded("llava-1.5"), source, workers=0).n_images == 5, "without a wish, all that is usable is enough"
    with pytest.raises(CalibrationError, match="none of the 2 images"):
        calibrate(loaded("llava-1.5"), Pictures(2, bad=[0, 1]), workers=0)
    with pytest.raises(CalibrationError, match="9 samples of a source with 8"):
        calibrate(loaded("llava-1.5"), source, samples=9)


def test_too_many_skips_keep_the_state_and_are_tried_again(tmp_path):
    unit, out = loaded("llava-1.5"), tmp_path / "prior.safetensors"
    whole = calibrate(unit, Pictures(40), samples=24, workers=0).to_bytes()
    source = Pictures(40, bad=order(Pictures(40), 0)[10:].tolist())  # the disk goes away after ten images
    with pytest.raises(CalibrationError, match=r"1[12] images could not be used") as caught:
        calibrate(unit, source, samples=24, workers=0, out=out)
    assert "run the same command again" in caught.value.hint
    assert Path(f"{out}.partial").is_file() and not out.exists()
    source.bad = set()
    assert calibrate(unit, source, samples=24, workers=0, out=out).to_bytes() == whole == out.read_bytes()
    assert not Path(f"{out}.partial").exists()


def test_errors_of_the_whole_source_keep_the_state(tmp_path):
    class Flaky(Pictures):
        broken = True

        def load(self, index):
            if self.broken and index == self.stop:
                raise SourceError("the network is gone", "plug it in")
            return super().load(index)

    unit, out = loaded("llava-1.5"), tmp_path / "prior.safetensors"
    source = Flaky(10)
    source.stop = int(order(source, 0)[7])
    with pytest.raises(SourceError, match="network is gone"):
        calibrate(unit, source, workers=0, out=out)
    assert Path(f"{out}.partial").is_file()
    source.broken = False
    calibrate(unit, source, workers=0, out=out)
    assert out.read_bytes() == calibrate(unit, Pictures(10), workers=0).to_bytes()


def _run(unit, out, report=None):
    source = Pictures(16, bad=[5, 9], delay=0.004)
    calibrate(unit, source, samples=12, batch_size=2, workers=0, out=out, save_every=0.0, layers="all", report=report)


def _dying(unit, out, images, wait):
    """Run, and die some seconds after so many images: a slow machine moves the moment, not what was done before it."""

    def report(progress):
        if progress.done >= images and threading.active_count() == 1:
            threading.Timer(wait, os.kill, (os.getpid(), signal.SIGKILL)).start()

    _run(unit, out, report)


def test_ten_kills_at_random_moments_give_ten_identical_files(tmp_path):
    unit = loaded("llava-1.5")
    started = time.monotonic()
    _run(unit, tmp_path / "whole.safetensors")
    step = (time.monotonic() - started) / 6
    whole = (tmp_path / "whole.safetensors").read_bytes()
    rng = np.random.default_rng()
    resumed = 0
    fork = multiprocessing.get_context("fork")
    for number in range(10):
        out = tmp_path / f"killed-{number}.safetensors"
        victim = fork.Process(target=_dying, args=(unit, out, int(rng.integers(0, 8)), float(rng.uniform(0, 1)) * step))
        victim.start()
        victim.join()
        resumed += Path(f"{out}.partial").exists()
        if out.exists():
            out.unlink()  # it was faster than the kill
        _run(unit, out)
        assert out.read_bytes() == whole
        assert [path.name for path in tmp_path.glob(f"*{out.name}.partial*")] == []
    assert resumed >= 5, "most kills must have left a state to go on from"


def test_ctrl_c_keeps_the_state(tmp_path):
    unit, out = loaded("llava-1.5"), tmp_path / "prior.safetensors"

    def interrupt(progress):
        if progress.done >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        calibrate(unit, Pictures(10), workers=0, out=out, report=interrupt)
    first = []
    calibrate(unit, Pictures(10), workers=0, out=out, report=lambda p: first.append(p.done))
    assert first[0] == 4
    assert out.read_bytes() == calibrate(unit, Pictures(10), workers=0).to_bytes()


def test_state_of_other_settings_is_refused_and_named(tmp_path):
    unit, out = loaded("llava-1.5"), tmp_path / "prior.safetensors"

    def stop(progress):
        if progress.done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        calibrate(unit, Pictures(10), workers=0, out=out, report=stop)
    with pytest.raises(CalibrationError, match="other settings: seed was 0, is 1") as caught:
        calibrate(unit, Pictures(10), seed=1, workers=0, out=out)
    assert "--restart" in caught.value.hint
    calibrate(unit, Pictures(10), seed=1, workers=0, out=out, restart=True)
    assert Prior.load(out).meta["seed"] == "1"


def test_broken_state_is_named(tmp_path):
    out = tmp_path / "prior.safetensors"
    Path(f"{out}.partial").write_bytes(b"nonsense")
    with pytest.raises(CalibrationError, match="not a state of a calibration"):
        calibrate(loaded("llava-1.5"), Pictures(4), workers=0, out=out)


def test_nothing_is_overwritten_without_force(tmp_path):
    unit, out = loaded("llava-1.5"), tmp_path / "prior.safetensors"
    out.write_text("precious")
    with pytest.raises(CalibrationError, match="exists"):
        calibrate(unit, Pictures(3), workers=0, out=out)
    assert out.read_text() == "precious"
    calibrate(unit, Pictures(3), workers=0, out=out, force=True)
    assert Prior.load(out).n_images == 3


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"seed": 1}, 'seed was "0", is "1"'),
        ({"samples": 2}, "n_images was 3, is 2"),
        ({"layers": "all"}, "layers was"),
        ({"per_head": True}, "per_head was false, is true"),
        ({"groups": 2}, "groups was 3, is 2"),
        ({"prompts": "What is this?"}, "prompt was"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_finished_calibration_is_finished_and_others_are_told_what_differs(tmp_path, more, told):
    unit, out = loaded("llava-1.5"), tmp_path / "prior.safetensors"
    made = calibrate(unit, Pictures(3), workers=0, out=out)
    stamp = out.stat().st_mtime_ns
    assert calibrate(unit, Pictures(3), workers=0, out=out).to_bytes() == made.to_bytes() and out.stat().st_mtime_ns == stamp
    with pytest.raises(CalibrationError, match="exists") as caught:
        calibrate(unit, Pictures(3), workers=0, out=out, **more)
    assert told in caught.value.message and out.stat().st_mtime_ns == stamp


def test_a_finished_calibration_of_a_source_with_unusable_images_is_finished(tmp_path):
    unit, out = loaded("llava-1.5"), tmp_path / "prior.safetensors"
    spoilt = Pictures(6, bad={1: ImageSkipped("spoilt")})
    made = calibrate(unit, spoilt, workers=0, out=out)
    assert made.n_images == 5
    assert calibrate(unit, spoilt, workers=0, out=out).to_bytes() == made.to_bytes()


def stop_after(n):
    """A report callback that presses Ctrl-C once n images are done."""

    def report(progress):
        if progress.done >= n:
            raise KeyboardInterrupt

    return report


def test_killed_between_writing_the_prior_and_deleting_the_state(tmp_path):
    unit, out = loaded("llava-1.5"), tmp_path / "prior.safetensors"
    with pytest.raises(KeyboardInterrupt):
        calibrate(unit, Pictures(3), workers=0, out=out, report=stop_after(3))
    state = Path(f"{out}.partial").read_bytes()
    done = calibrate(unit, Pictures(3), workers=0, out=out)
    Path(f"{out}.partial").write_bytes(state)
    assert calibrate(unit, Pictures(3), workers=0, out=out).to_bytes() == done.to_bytes() == out.read_bytes()
    assert not Path(f"{out}.partial").exists()


def test_an_older_prior_is_never_taken_for_this_run(tmp_path):
    """Interrupted with --force over an older prior, then run without it: refused, and the state stays."""
    unit, out = loaded("llava-1.5"), tmp_path / "prior.safetensors"
    calibrate(unit, Pictures(4), workers=0, out=out)
    with pytest.raises(KeyboardInterrupt):
        calibrate(unit, Pictures(20), seed=7, workers=0, out=out, force=True, report=stop_after(4))
    with pytest.raises(CalibrationError, match="exists"):
        calibrate(unit, Pictures(20), seed=7, workers=0, out=out)
    assert Path(f"{out}.partial").exists()
    calibrate(unit, Pictures(20), seed=7, workers=0, out=out, force=True)
    assert out.read_bytes() == calibrate(unit, Pictures(20), seed=7, workers=0).to_bytes()


@pytest.fixture
def ctrl_c():
    """Ctrl-C raises KeyboardInterrupt, also where a shell started the tests in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("at", [1, 6, 7])
@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_in_the_middle_of_a_batch_counts_nothing_twice(tmp_path, monkeypatch, at):
    from biaskit.calibration.moments import Moments

    unit, out = loaded("llava-1.5"), tmp_path / "prior.safetensors"
    whole = calibrate(unit, Pictures(12), workers=0, batch_size=4).to_bytes()
    add, calls = Moments.add, []

    def interrupted(self, *args):
        add(self, *args)
        calls.append(args)
        if len(calls) == at:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Moments, "add", interrupted)
    with pytest.raises(KeyboardInterrupt):
        calibrate(unit, Pictures(12), workers=0, batch_size=4, out=out)
    assert calibrate(unit, Pictures(12), workers=0, batch_size=4, out=out).to_bytes() == whole


def test_an_error_in_the_middle_of_a_batch_does_not_spoil_the_state(tmp_path, monkeypatch):
    from biaskit.calibration.moments import Moments

    unit, out = loaded("llava-1.5"), tmp_path / "prior.safetensors"
    whole = calibrate(unit, Pictures(12), workers=0, batch_size=4).to_bytes()
    add, calls = Moments.add, []

    def broken(self, *args):
        add(self, *args)
        calls.append(args)
        if len(calls) == 6:
            raise MemoryError

    monkeypatch.setattr(Moments, "add", broken)
    with pytest.raises(MemoryError):
        calibrate(unit, Pictures(12), workers=0, batch_size=4, out=out, save_every=0.0)
    assert calibrate(unit, Pictures(12), workers=0, batch_size=4, out=out).to_bytes() == whole


@pytest.mark.parametrize("workers", [0, 1])
def test_errors_of_the_source_keep_their_words_across_processes(tmp_path, workers):
    class Gone(Pictures):
        def load(self, index):
            raise SourceError("the disk is gone", "plug it in")

    with pytest.raises(SourceError, match="the disk is gone") as caught:
        calibrate(loaded("llava-1.5"), Gone(4), workers=workers, out=tmp_path / "prior.safetensors")
    assert caught.value.hint == "plug it in"


@pytest.mark.parametrize("name", TINY)
def test_thin_images_are_used_or_skipped(name):
    class Thin(Pictures):
        sizes = ((3000, 16), (16, 3000), (5000, 20), (17, 16))

        def load(self, index):
            return Image.new("RGB", self.sizes[index]) if index < len(self.sizes) else super().load(index)

    prior = calibrate(loaded(name), Thin(8), workers=0, batch_size=3, layers=(0,))
    assert prior.n_images + int(prior.meta["n_skipped"]) == 8 and prior.n_images >= 4


@pytest.mark.parametrize(("layers", "error"), [((0, 17), "layers"), ("first", "layers 'first'"), ((), "layers")])
def test_impossible_layers(layers, error):
    with pytest.raises(BiaskitError, match=error):
        calibrate(loaded("llava-1.5"), Pictures(3), layers=layers, workers=0)


def test_real_images(coco_sample, checkpoint):
    from biaskit.images import open_source

    source = open_source("coco", coco_root=coco_sample)
    assert len(source) == 117
    prior = calibrate(load_model(str(checkpoint("qwen2.5-vl"))), source, samples=12, workers=0)
    assert prior.n_images == 12 and prior.meta["source"] == "coco" and prior.meta["n_skipped"] == "0"


def test_torchrun_gives_the_same_prior(tmp_path, checkpoint):
    """Two processes share the images out; the result is that of one, to the byte."""
    import subprocess
    import sys

    data = ["--data", "generated", "-n", "11", "--batch-size", "2", "--workers", "0", "--device", "cpu"]
    base = ["--model", str(checkpoint("llava-1.5")), *data]
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    two, one = tmp_path / "two.safetensors", tmp_path / "one.safetensors"
    subprocess.run([*run, "-m", "biaskit", "calibrate", *base, "--out", str(two)], check=True, capture_output=True, timeout=300)
    subprocess.run([sys.executable, "-m", "biaskit", "calibrate", *base, "--out", str(one)], check=True, capture_output=True, timeout=300)
    assert Prior.load(two).n_images == 11 and two.read_bytes() == one.read_bytes()
    assert not list(tmp_path.glob("*partial*"))


def test_load_model_reads_what_was_saved(checkpoint):
    lines = []
    unit = load_model(str(checkpoint("internvl-qwen2")), say=lines.append)
    expected, _, _ = tiny_model("internvl-qwen2")
    for name, weight in expected.state_dict().items():
        assert torch.equal(unit.model.state_dict()[name], weight), name
    assert any("float32 on cpu" in line and "GB of weights" in line for line in lines)
    with pytest.raises(ModelError, match="there is no checkpoint directory"):
        load_model("./nowhere/at-all")
