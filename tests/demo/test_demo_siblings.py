"""The side-by-side study: its measures name patterns that were put there, and both architectures can be asked."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from biaskit.demo.training.architectures import NAMES, find
from biaskit.demo.training.siblings import PLAIN, judged, main


def test_judged_names_what_was_put_there() -> None:
    rng = np.random.default_rng(0)
    rows = 1 + 0.02 * rng.random((3, 40, 12, 12))
    rows[1] *= np.linspace(0.5, 1.5, 12)[:, None] ** 2  # every row heavier than the one above
    rows[2, :, 2:-2, 2:-2] *= 0.4
    flat, bottom, periphery = judged(rows.reshape(3, 40, 144) / 300)
    assert (flat["verdict"], bottom["verdict"], periphery["verdict"]) == ("flat", "bottom-focused", "periphery-focused")
    assert bottom["variance_of_rows"] > 0.95
    assert bottom["variance_of_columns"] < 0.05
    assert bottom["bottom_third"]["low"] <= bottom["bottom_third"]["value"] <= bottom["bottom_third"]["high"]
    assert flat["visual_mass"] == np.float64(rows[0].sum((1, 2)).mean() / 300)


def test_study_of_untrained_models_finds_next_to_nothing(tmp_path: Path) -> None:
    """Attention of random weights is all but uniform, and on plain pictures Qwen's tower cannot tell shuffled patches apart."""
    torch.manual_seed(0)
    for name in NAMES:
        architecture = find(name)
        architecture.make_model(layers=2).save_pretrained(tmp_path / name)
        architecture.save_processor(tmp_path / name)
    assert main(["--models", *(str(tmp_path / name) for name in NAMES), "--out", str(tmp_path / "out"), "--n", "12"]) == 0
    report = json.loads((tmp_path / "out" / "siblings.json").read_text())
    assert (tmp_path / "out" / "siblings.png").stat().st_size > 10_000
    for name in NAMES:
        assert all(0.9 < layer["peak"] < 1.2 for layer in report["models"][name]["uniform scenes, neutral prompt"])
    agreement = {name: report["models"][name][f"correlation with {PLAIN}"] for name in NAMES}
    assert min(agreement["qwen"]["plain pictures, patches shuffled"]) > 0.9999
    assert max(agreement["llava"]["plain pictures, patches shuffled"]) < 0.999
