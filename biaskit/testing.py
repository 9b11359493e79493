"""Tiny random checkpoints of the real classes, for our own tests and those of plug-in authors. Their weights are random: they say
nothing about quality, and everything about shapes, positions and exactness.
"""

from __future__ import annotations

from biaskit.engine.contracts import check_family, check_pruner
from biaskit.families.checkpoints.tiny import SPECIAL, TINY, byte_tokenizer, save_tiny, tiny_inputs, tiny_model

__all__ = ["SPECIAL", "TINY", "byte_tokenizer", "check_family", "check_pruner", "save_tiny", "tiny_inputs", "tiny_model"]
