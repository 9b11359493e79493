"""Stage 1: the vision tower learns, for every patch, what covers it and where that thing's box is."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from biaskit.demo.training.architecture import MEAN, STD, VISION_HIDDEN, Architecture
from biaskit.demo.training.arrays import memory_map
from biaskit.demo.training.checkpoint import keep, restore
from biaskit.demo.training.muon import Muon
from biaskit.demo.training.pictures import Pictures, Say
from biaskit.files import write_file
from biaskit.images.scenes.draw import COLOURS, EDGE, PATCH, PATCHES, SHAPES, SIZES, draw_scene
from biaskit.images.scenes.vocabulary import BINS, VISUAL

BATCH = 64
MUON_RATE, ADAM_RATE = 0.012, 2e-3
_WIDTHS = (1, len(SIZES), len(COLOURS), len(SHAPES), 4 * BINS)  # is anything here? which size, colour, shape; x1 y1 x2 y2


def to_pixel_values(pixels: NDArray[np.uint8]) -> Tensor:
    """[B, 168, 168, 3] uint8 → [B, 3, 168, 168] float32, as the image processor does."""
    return (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 - MEAN) / STD


def _labels(owner: NDArray[np.int8], facts: NDArray[np.float32], flip: bool, relative: bool) -> tuple[Tensor, Tensor]:
    """Return per patch the facts of the thing that covers it [B, 144, 7], and whether any does [B, 144].

    With `relative`, boxes are moved as if the patch were in the middle of the image.
    """
    owner, facts = owner.reshape(-1, PATCHES, PATCHES), facts.copy()
    if flip:
        owner = owner[:, :, ::-1]
        facts[..., 3], facts[..., 5] = EDGE - facts[..., 5], EDGE - facts[..., 3]
    which = torch.from_numpy(np.ascontiguousarray(owner).reshape(-1, VISUAL).astype(np.int64))
    mine = torch.gather(torch.from_numpy(facts), 1, which.clamp(min=0)[..., None].expand(-1, -1, 7))
    if relative:
        place = torch.arange(VISUAL)
        centre = torch.stack([place % PATCHES, place // PATCHES], -1) * PATCH + PATCH / 2
        mine[..., 3:] -= (centre - EDGE / 2).repeat(1, 2)
    return mine, which >= 0


def _losses(output: Tensor, facts: Tensor, covered: Tensor) -> tuple[Tensor, dict[str, float]]:
    """Return the sum of the five losses, and what share of covered patches is right (box: mean absolute error in pixels)."""
    here, size, colour, shape, box = torch.split(output.float(), list(_WIDTHS), -1)
    centres = (torch.arange(BINS, device=output.device) + 0.5) * EDGE / BINS
    loss = functional.binary_cross_entropy_with_logits(here[..., 0], covered.float())
    scores = {"covered": float(((here[..., 0] > 0) == covered).float().mean())}
    mine = facts[covered]
    for name, logits, column in (("size", size, 0), ("colour", colour, 1), ("shape", shape, 2)):
        truth = mine[:, column].long()
        loss = loss + functional.cross_entropy(logits[covered], truth)
        scores[name] = float((logits[covered].argmax(-1) == truth).float().mean())
    bins = box[covered].view(-1, 4, BINS)
    soft = torch.softmax(-(((centres - mine[:, 3:, None]) / 3.0) ** 2) / 2, -1)
    loss = loss - (soft * bins.log_softmax(-1)).sum(-1).mean()
    scores["box_px"] = float(((bins.softmax(-1) * centres).sum(-1) - mine[:, 3:]).abs().mean().detach())
    return loss, scores


def train_vision(
    architecture: Architecture, tower: nn.Module, pictures: Pictures, work: Path, steps: int, seed: int, device: str, say: Say
) -> list[dict[str, Any]]:
    """Train the tower in place; its state is kept in `work` and resumed. Returns the curve."""
    torch.manual_seed(seed)
    head = nn.Linear(VISION_HIDDEN, sum(_WIDTHS)).to(device)
    tower.to(device).train()
    weights = [*tower.parameters(), *head.parameters()]
    matrices = [weight for name, weight in tower.named_parameters() if weight.ndim == 2 and architecture.blocks in name]
    chosen = {id(weight) for weight in matrices}
    muon = Muon(matrices, lr=MUON_RATE)
    adam = torch.optim.AdamW([weight for weight in weights if id(weight) not in chosen], lr=ADAM_RATE, betas=(0.9, 0.98), weight_decay=0.02)
    state: dict[str, Any] = {"step": 0, "curve": []}
    parts: dict[str, Any] = {"tower": tower, "head": head, "muon": muon, "adam": adam}
    kept = work / "vision.pt"
    state = restore(kept, parts, device) or state
    began, first = time.monotonic(), int(state["step"])
    for step in range(first, steps):
        rate = min(1, (step + 1) / 100) * (0.02 + 0.49 * (1 + math.cos(math.pi * step / steps)))
        muon.param_groups[0]["lr"], adam.param_groups[0]["lr"] = MUON_RATE * rate, ADAM_RATE * rate
        rng = np.random.default_rng([seed, 1, step])
        index, flip = np.sort(rng.integers(0, len(pictures), BATCH)), bool(rng.random() < 0.5)
        pixels = pictures.pixels[index]
        facts, covered = _labels(pictures.owner[index], pictures.facts[index], flip, architecture.relative)
        values = to_pixel_values(np.ascontiguousarray(pixels[:, :, ::-1]) if flip else pixels)
        with torch.autocast(device.split(":")[0], torch.bfloat16):
            output = head(architecture.see(tower, values.to(device)))
        loss, scores = _losses(output, facts.to(device), covered.to(device))
        muon.zero_grad()
        adam.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(weights, 1.0)
        muon.step()
        adam.step()
        state["step"] = step + 1
        if (step + 1) % 50 == 0 or step + 1 == steps:
            speed = (step + 1 - first) / (time.monotonic() - began)
            state["curve"].append({"step": step + 1, "images": (step + 1) * BATCH, "loss": loss.item(), **scores})
            told = "  ".join(f"{name} {value:.3f}" for name, value in scores.items())
            left = (steps - step - 1) / speed
            say(f"vision {step + 1}/{steps}  {speed * BATCH:.0f} images/s  {left:.0f} s left  loss {loss.item():.3f}  {told}")
        if (step + 1) % 100 == 0 or step + 1 == steps:
            keep(kept, state, parts)
    tower.eval()
    return list(state["curve"])


@torch.inference_mode()
def check_vision(
    architecture: Architecture, tower: nn.Module, head_state: dict[str, Tensor], seed: int, placement: str, n: int, device: str
) -> dict[str, float]:
    """Return the mean scores of tower and head on `n` fresh scenes."""
    head = nn.Linear(VISION_HIDDEN, sum(_WIDTHS)).to(device)
    head.load_state_dict(head_state)
    total: dict[str, float] = {}
    for start in range(0, n, BATCH):
        scenes = [draw_scene(seed, i, placement) for i in range(start, min(n, start + BATCH))]
        facts = np.full((len(scenes), 10, 7), -1, np.float32)
        for row, scene in enumerate(scenes):
            for column, thing in enumerate(scene.things):
                facts[row, column] = (*thing.key, *thing.box)
        labels, covered = _labels(np.stack([scene.owner for scene in scenes]), facts, False, architecture.relative)
        values = to_pixel_values(np.stack([scene.pixels for scene in scenes])).to(device)
        _, scores = _losses(head(architecture.see(tower, values)), labels.to(device), covered.to(device))
        for name, value in scores.items():
            total[name] = total.get(name, 0.0) + value * len(scenes) / n
    return total


@torch.inference_mode()
def cache_features(
    architecture: Architecture, tower: nn.Module, pictures: Pictures, work: Path, device: str, say: Say
) -> NDArray[np.float16]:
    """Return the frozen tower's patch features of every training scene, float16 [n, 144, 128], kept on disk."""
    path, marker = work / "features.npy", work / "features.done"
    shape = (len(pictures), VISUAL, VISION_HIDDEN)
    if marker.exists():
        return np.load(path, mmap_mode="r")  # type: ignore[no-any-return]
    features = memory_map(path, np.float16, shape, fresh=True)
    began = time.monotonic()
    for start in range(0, len(pictures), 50):
        with torch.autocast(device.split(":")[0], torch.bfloat16):
            values = to_pixel_values(pictures.pixels[start : start + 50]).to(device)
            features[start : start + 50] = architecture.see(tower, values).half().cpu().numpy()
        if start % 5000 == 0 and start:
            rate = start / (time.monotonic() - began)
            say(f"features {start}/{len(pictures)}  {rate:.0f} images/s  {(len(pictures) - start) / rate:.0f} s left")
    features.flush()
    write_file(marker, b"")
    return features
