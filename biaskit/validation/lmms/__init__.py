"""lmms-eval's benchmarks with pruning: the model `biaskit` of lmms-eval 0.7, announced to it by an entry point.

lmms-eval --model biaskit --model_args pretrained=llava-1.5,pruner=d2pruner,retention=0.1,prior=FILE --tasks pope,gqa --batch_size 8

Nothing here imports lmms-eval before lmms-eval itself asks for the model: biaskit works without it.
"""

from __future__ import annotations

from typing import Any


def manifest() -> Any:
    """Return what lmms-eval needs to know of the model: its name, and its two classes. The target of the entry point."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest("biaskit", simple_class_path=f"{__name__}.adapter.Simple", chat_class_path=f"{__name__}.adapter.Chat")
