"""The published wording of questions, per family. One table a kind of question, its source beside every line.

What goes into the model is the chat template of the checkpoint around these words; the image comes before them.
"""

from __future__ import annotations

REGION = "Please provide the bounding box coordinate of the region this sentence describes: {}"
"""LLaVA-1.5's wording: that of its training data, and of its evaluation on RefCOCO by others (om-ai-lab/VLM-R1, lmms-eval's `bbox_rec`)."""

_GROUNDING = {
    "qwen2_vl": "Please provide the bounding box coordinate of the region this sentence describes: "
    "<|object_ref_start|>{}<|object_ref_end|>",  # the markers are those of its report, section 2.2; no prompt was published
    "qwen2_5_vl": "Locate {} in this image and output the bbox coordinates in JSON format.",  # QwenLM/Qwen3-VL, qwen-vl-finetune's example
    "qwen3_vl": 'Locate every object that matches the description "{}" in the image. Report bbox coordinates in JSON format.',
    # QwenLM/Qwen3-VL issue 1721: the wording of its own RefCOCO figures
    "internvl": "Please provide the bounding box coordinate of the region this sentence describes: <ref>{}</ref>",
    # OpenGVLab/InternVL, eval/refcoco/evaluate_grounding.py
}
_GROUNDING["qwen3_vl_moe"] = _GROUNDING["qwen3_vl"]

SHORT = "{}\nAnswer the question using a single word or phrase."
"""LLaVA-1.5's format prompt for short answers (arXiv 2310.03744): POPE, GQA, VQAv2, TextVQA. InternVL's and Qwen2-VL's evaluations
of the same sets use the same sentence (OpenGVLab/InternVL eval/pope, eval/vqa)."""

_SHORT = {"internvl": "{} Answer the question using a single word or phrase."}  # OpenGVLab/InternVL, eval/vqa: after a blank

PRESENCE = "Is there {} {} in the image?"
"""POPE's question (arXiv 2305.10355): article and object."""


def ask_region(phrase: str, model_type: str = "", base: str = "") -> str:
    """Ask for the box of what a phrase describes; unknown model types are asked as LLaVA-1.5.

    The embedded model is asked in its own words: "where is the … ?".
    """
    if base.startswith("demo"):
        return f"where is the {phrase} ?"
    return _GROUNDING.get(model_type, REGION).format(phrase)


def ask_short(question: str, model_type: str = "", base: str = "") -> str:
    """Ask for a single word or phrase; the embedded model never says more, so its question stays as it is."""
    return question if base.startswith("demo") else _SHORT.get(model_type, SHORT).format(question)


def ask_presence(thing: str) -> str:
    """Return POPE's question about a thing."""
    return PRESENCE.format("an" if thing[:1].lower() in tuple("aeiou") else "a", thing)
