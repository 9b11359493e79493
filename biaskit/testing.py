"""Tiny random checkpoints of the real classes, for our own tests and those of plug-in authors. Their weights are random: they say
nothing about quality, and everything about shapes, positions and exactness.
"""

from __future__ import annotations

from biaskit.engine.family_contract import check_family
from biaskit.engine.pruner_contract import check_pruner
from biaskit.families.checkpoints.tiny import TINY, save_tiny, tiny_inputs, tiny_model
from biaskit.families.checkpoints.tiny_parts import SPECIAL, byte_tokenizer

__all__ = ["SPECIAL", "TINY", "byte_tokenizer", "check_family", "check_pruner", "save_tiny", "tiny_inputs", "tiny_model"]
