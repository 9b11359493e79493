"""No network, one thread a process, real images where they are, tiny checkpoints of every family, kernels in Triton's interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

import pytest
import torch
from checkpoints import DWARFS, built

if "triton" not in sys.modules and not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # the same programs on the CPU; it must be asked for before Triton is imported


@pytest.fixture(scope="session")
def coco_sample() -> Path:
    """The directory of the real COCO images, or a skip."""
    root = os.environ.get("BIASKIT_COCO_SAMPLE")
    if not root:
        pytest.skip("BIASKIT_COCO_SAMPLE is not set: no real COCO images here")
    return Path(root)


@pytest.fixture(scope="session")
def real_checkpoints() -> Path:
    """The directory of the real checkpoints' small files, or a skip."""
    root = os.environ.get("BIASKIT_REAL_CHECKPOINTS")
    if not root:
        pytest.skip("BIASKIT_REAL_CHECKPOINTS is not set: no files of real checkpoints here")
    return Path(root)


@pytest.fixture(scope="session")
def dwarf(real_checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Name → directory of a checkpoint with the real small files and geometry, and small random weights; built once a session.

    Processes of one session share the directory, so each checkpoint is built under a lock. What is in it must not be changed: copy it.
    """
    from filelock import FileLock

    base = tmp_path_factory.getbasetemp()
    root = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "dwarfs"
    root.mkdir(exist_ok=True)

    @cache
    def make(name: str) -> Path:
        if name == "llava-v1.6-mistral-7b-hf":
            make("llava-v1.6-vicuna-7b-hf")  # whose processor's files it takes
        with FileLock(root / f"{name}.lock"):
            done = root / f"{name}.done"
            if not done.exists():
                command = [sys.executable, str(real_checkpoints / "build.py"), DWARFS[name]]
                found = subprocess.run(command, env={**os.environ, "DWARFS": str(root)}, capture_output=True, text=True)
                assert found.returncode == 0, found.stderr[-2000:]
                done.touch()
        return root / name

    return make


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`tiny` runs through the families; transformers is imported by tests that need it alone."""
    if "tiny" in metafunc.fixturenames:
        from biaskit.families.checkpoints.tiny import TINY

        metafunc.parametrize("tiny", TINY, indirect=True)


@pytest.fixture
def tiny(request: pytest.FixtureRequest) -> tuple[Any, Any, Any]:
    """(model, processor, family) of each family in turn, under sdpa."""
    return built(request.param)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Name → directory of a tiny checkpoint, saved as hub repositories are."""

    @cache
    def make(name: str) -> Path:
        from biaskit.families.checkpoints.tiny import save_tiny

        return save_tiny(name, tmp_path_factory.mktemp("checkpoints") / name)

    return make


@pytest.fixture(scope="module")
def interpreter() -> None:
    """Kernels run on the CPU."""
    if find_spec("triton") is None:
        pytest.skip("triton is not installed; it comes with torch for CUDA")
    if os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("triton was imported without its interpreter; with a GPU, tests/gpu runs the kernels")


@pytest.fixture
def as_on_a_device(interpreter: None) -> Iterator[None]:
    """Tensors on the CPU take the ways of a device."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("biaskit.device._pretend", True)
        yield
