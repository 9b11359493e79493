"""On a CUDA device: the same prior as on the CPU, at every precision and attention kernel, with flat memory."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch

from biaskit.calibration.run import calibrate
from biaskit.families.checkpoints.load import Loaded
from biaskit.families.checkpoints.tiny import TINY, tiny_model
from biaskit.images.generated import GeneratedSource

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


def loaded(name, device, **options):
    model, processor, family = tiny_model(name, **options)
    return Loaded(model.to(device), processor, family, name, "test")


@pytest.mark.parametrize("name", TINY)
def test_gpu_and_cpu_agree(name):
    source = GeneratedSource(10, 0)
    gpu = calibrate(loaded(name, "cuda", dtype=torch.float64), source, batch_size=4, workers=2)
    cpu = calibrate(loaded(name, "cpu", dtype=torch.float64), source, batch_size=4, workers=0)
    for plane in cpu.planes:
        np.testing.assert_allclose(gpu.planes[plane].mean, cpu.planes[plane].mean, rtol=1e-4)


@pytest.mark.parametrize("name", TINY)
def test_bfloat16_is_near_float32(name):
    source = GeneratedSource(10, 0)
    half = calibrate(loaded(name, "cuda", dtype=torch.bfloat16), source, workers=2, layers=(0,))
    full = calibrate(loaded(name, "cuda"), source, workers=2, layers=(0,))
    for plane in full.planes:
        assert np.corrcoef(half.planes[plane].mean.ravel(), full.planes[plane].mean.ravel())[0, 1] > 0.9


@pytest.mark.skipif(importlib.util.find_spec("flash_attn") is None, reason="flash_attn is not installed")
def test_flash_attention_is_near_sdpa():
    source = GeneratedSource(10, 0)
    options = {"dtype": torch.bfloat16}
    flash = calibrate(loaded("llava-1.5", "cuda", attention="flash_attention_2", **options), source, workers=2)
    sdpa = calibrate(loaded("llava-1.5", "cuda", **options), source, workers=2)
    np.testing.assert_allclose(flash.planes["image"].mean, sdpa.planes["image"].mean, rtol=0.1)


def test_memory_does_not_grow_with_the_number_of_images():
    unit = loaded("llava-1.5", "cuda")
    peaks = []
    for n in (32, 256):
        torch.cuda.reset_peak_memory_stats()
        calibrate(unit, GeneratedSource(n, 0), workers=4)
        peaks.append(torch.cuda.max_memory_allocated())
    assert peaks[1] <= peaks[0] * 1.05
