"""The scorer of the POPE benchmark, as lmms-eval has it: a task's functions are looked for beside its YAML file."""

from lmms_eval.tasks.pope.utils import (
    pope_aggregate_accuracy,
    pope_aggregate_f1_score,
    pope_doc_to_text,
    pope_doc_to_visual,
    pope_process_results,
)

__all__ = ["pope_aggregate_accuracy", "pope_aggregate_f1_score", "pope_doc_to_text", "pope_doc_to_visual", "pope_process_results"]
