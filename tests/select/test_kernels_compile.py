"""Every kernel compiles for an H100 and an H200, which needs no GPU: the interpreter takes more than the compiler does."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest

PROGRAM = """
import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver, jit


class Absent:
    def get_current_device(self): return 0
    def get_current_stream(self, device=None): return 0
    def get_current_target(self): return GPUTarget("cuda", 90, 32)


run, compiled = jit.JITFunction.run, {}


def compile_only(self, *arguments, grid, warmup, **settings):
    compiled[self.__name__] = run(self, *arguments, grid=grid, warmup=True, **settings)


driver.set_active(Absent())
jit.JITFunction.run = compile_only

import biaskit.device
from biaskit.errors import BiaskitError
from biaskit.select import cells, d2_select_many, max_min_select_many, mmr_select_many
from biaskit.select.gpu import cosines

biaskit.device._pretend = True
cosines._product = lambda a, b, out: None
for total, dim, n, dtype in ((2880, 4096, 322, torch.bfloat16), (1, 1, 1, torch.float32), (8192, 64, 1, torch.float16)):
    features, scores = torch.zeros(2, total, dim, dtype=dtype), torch.zeros(2, total)
    for select in (
        lambda: d2_select_many(scores, features, cells((1, total)), n, alpha=0.5),
        lambda: d2_select_many(scores, features, None, n, fill="none"),
        lambda: mmr_select_many(scores, features, n),
        lambda: max_min_select_many(features, n),
    ):
        try:
            select()
        except (BiaskitError, ValueError):  # of numbers that nobody computed
            pass
print(*sorted(compiled))
"""


@pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed; it comes with torch for CUDA")
def test_every_kernel_compiles(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"} | {"TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False, env=environment)
    assert done.stdout == "_closest _count _invert _pick _range _scale _settle _touch _walk _weigh\n", done.stderr
