"""What the local tasks are scored with, next to their YAML files, where lmms-eval looks for it: its own scorers of POPE and RefCOCO."""

import re

from lmms_eval.tasks.pope.utils import (
    pope_aggregate_accuracy,
    pope_aggregate_f1_score,
    pope_doc_to_text,
    pope_doc_to_visual,
    pope_process_results,
)
from lmms_eval.tasks.refcoco.utils_rec import compute_iou

__all__ = [
    "box_process_results",
    "pope_aggregate_accuracy",
    "pope_aggregate_f1_score",
    "pope_doc_to_text",
    "pope_doc_to_visual",
    "pope_process_results",
]


def box_process_results(doc, results):
    """IoU of at least 0.5. A location word stands for the middle of a step of 3.5 pixels."""
    words = [3.5 * (int(number) + 0.5) for number in re.findall(r"<loc(\d\d)>", results[0])]
    return {"iou50": float(len(words) == 4 and compute_iou(words, doc["box"]) >= 0.5)}
