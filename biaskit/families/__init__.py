"""Model families: one module per architecture, looked up by `model_type`. The only folder that tells architectures apart."""

from __future__ import annotations

from biaskit.families.base import ModelFamily, Prepared
from biaskit.registry import Registry

families: Registry[ModelFamily] = Registry("model family", __name__, base=ModelFamily)

__all__ = ["ModelFamily", "Prepared", "families"]
