"""Tiny random checkpoints of the real classes, for the tests of biaskit and of plug-ins. Their weights are random: they test shapes,
positions and exactness, never quality.
"""

from __future__ import annotations

from biaskit.engine.family_contract import check_family
from biaskit.engine.pruner_contract import check_pruner
from biaskit.families.checkpoints.tiny import TINY, save_tiny, tiny_inputs, tiny_model
from biaskit.families.checkpoints.tiny_parts import SPECIAL, byte_tokenizer

__all__ = ["SPECIAL", "TINY", "byte_tokenizer", "check_family", "check_pruner", "save_tiny", "tiny_inputs", "tiny_model"]
