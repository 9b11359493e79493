"""The fused kernel through Triton's interpreter, which runs the same program on the CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest

PROGRAM = """
import torch
from biaskit.select import max_min_select, mmr_select
from biaskit.select.cosine import cosines, unit_rows
from biaskit.select.fused import greedy_in_one_launch
from biaskit.select.scores import min_max

random = torch.Generator().manual_seed(0)
for total, n in ((1, 1), (5, 5), (40, 17), (129, 40)):
    features = torch.randn(3, total, 6, generator=random) + 1
    features[:, total // 2 :] = features[:, : total - total // 2]  # copies, and with them ties
    scores = torch.randint(0, 5, (3, total), generator=random).float()
    table = torch.stack([cosines(unit_rows(f), unit_rows(f)) for f in features])
    worth = torch.stack([min_max(s) for s in scores])
    found = greedy_in_one_launch(table, n, worth.argmax(1), 0.5 * worth, 0.5)
    for f, s, kept in zip(features, scores, found):
        assert kept.tolist() == mmr_select(s, f, n, order="choice").tolist(), (total, n)
    first = torch.stack([max_min_select(f, 1)[0] for f in features])
    found = greedy_in_one_launch(table, n, first, torch.zeros_like(worth), 1.0)
    for f, kept in zip(features, found):
        assert kept.tolist() == max_min_select(f, n, order="choice").tolist(), (total, n)
print("same")
"""


@pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed; it comes with torch for CUDA")
def test_one_launch_takes_what_the_loop_takes() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False, env={**os.environ, "TRITON_INTERPRET": "1"}
    )
    assert done.stdout == "same\n", done.stderr
