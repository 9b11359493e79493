"""lmms-eval's benchmarks with pruning: the model `biaskit` of lmms-eval 0.7, registered by an entry point.

lmms-eval --model biaskit --model_args pretrained=llava-1.5,pruner=d2pruner,retention=0.1,prior=FILE --tasks pope,gqa --batch_size 8

lmms-eval is only imported when it loads the model: biaskit works without it.
"""

from __future__ import annotations

from typing import Any


def manifest() -> Any:
    """Return the model's name and its two classes for lmms-eval. This is the target of the entry point."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest("biaskit", simple_class_path=f"{__name__}.adapter.Simple", chat_class_path=f"{__name__}.adapter.Chat")
