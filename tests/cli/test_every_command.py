"""Checkpoints through every command: a tiny one on small pictures always, all others and the dwarfs where BIASKIT_SLOW is set."""

from __future__ import annotations

import os

import pytest
from checkpoints import DWARFS
from every_command import through

from biaskit.families.checkpoints.tiny import TINY

slow = pytest.mark.skipif(not os.environ.get("BIASKIT_SLOW"), reason="BIASKIT_SLOW is not set: minutes for each checkpoint")


def test_a_tiny_checkpoint_at_a_low_resolution(checkpoint, tmp_path):
    """Several seconds: ten commands, figures among them."""
    took = through(checkpoint("qwen2.5-vl"), tmp_path, "--max-pixels", "23520")
    assert {"models check", "calibrate", "priors show", "heatmap", "prune", "validate", "validate report"} == set(took)


@slow
@pytest.mark.parametrize("name", TINY)
def test_a_tiny_checkpoint(checkpoint, tmp_path, name):
    through(checkpoint(name), tmp_path)


@slow
@pytest.mark.parametrize("name", DWARFS)
def test_a_dwarf(dwarf, tmp_path, name):
    through(dwarf(name), tmp_path)
