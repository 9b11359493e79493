"""Short names of checkpoints, and the Hugging Face twins of checkpoints that need remote code."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from biaskit.errors import ModelError
from biaskit.files import existing
from biaskit.tasks.conventions import BoxConvention, Wording

if TYPE_CHECKING:
    from biaskit.families.base import ModelFamily


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint with a short name.

    Attributes:
        hub_id: its repository.
        model_type: the family it belongs to.
        note: what a user must know.
    """

    hub_id: str
    model_type: str
    note: str = ""


_MPO = (
    "the MPO checkpoint, the only InternVL2.5 in HF format: it was trained further than OpenGVLab/InternVL2_5-8B, "
    "so results are not comparable one to one with papers that used the latter"
)

_GATED = "its licence must be accepted on the hub before it can be downloaded"

_THINKER = "its thinker alone, the part that sees and writes, is loaded; sizes count the files of its speech, too"

CHECKPOINTS = {
    "llava-1.5": Checkpoint("llava-hf/llava-1.5-7b-hf", "llava"),
    "llava-1.5-13b": Checkpoint("llava-hf/llava-1.5-13b-hf", "llava"),
    "llava-next": Checkpoint("llava-hf/llava-v1.6-vicuna-7b-hf", "llava_next"),
    "llava-next-mistral": Checkpoint("llava-hf/llava-v1.6-mistral-7b-hf", "llava_next"),
    "llava-next-13b": Checkpoint("llava-hf/llava-v1.6-vicuna-13b-hf", "llava_next"),
    "llava-onevision": Checkpoint("llava-hf/llava-onevision-qwen2-7b-ov-hf", "llava_onevision"),
    "qwen2-vl": Checkpoint("Qwen/Qwen2-VL-7B-Instruct", "qwen2_vl"),
    "qwen2.5-vl": Checkpoint("Qwen/Qwen2.5-VL-7B-Instruct", "qwen2_5_vl"),
    "qwen2.5-vl-3b": Checkpoint("Qwen/Qwen2.5-VL-3B-Instruct", "qwen2_5_vl"),
    "qwen2.5-omni": Checkpoint("Qwen/Qwen2.5-Omni-7B", "qwen2_5_omni_thinker", _THINKER),
    "qwen2.5-omni-3b": Checkpoint("Qwen/Qwen2.5-Omni-3B", "qwen2_5_omni_thinker", _THINKER),
    "qwen3-vl": Checkpoint("Qwen/Qwen3-VL-8B-Instruct", "qwen3_vl"),
    "internvl2.5": Checkpoint("OpenGVLab/InternVL2_5-8B-MPO-hf", "internvl", _MPO),
    "internvl2.5-2b": Checkpoint("OpenGVLab/InternVL2_5-2B-MPO-hf", "internvl", _MPO),
    "internvl3": Checkpoint("OpenGVLab/InternVL3-8B-hf", "internvl"),
    "llava-next-video": Checkpoint("llava-hf/LLaVA-NeXT-Video-7B-hf", "llava_next_video"),
    "smolvlm-256m": Checkpoint("HuggingFaceTB/SmolVLM-256M-Instruct", "idefics3"),
    "smolvlm-500m": Checkpoint("HuggingFaceTB/SmolVLM-500M-Instruct", "idefics3"),
    "smolvlm": Checkpoint("HuggingFaceTB/SmolVLM-Instruct", "idefics3"),
    "smolvlm2": Checkpoint("HuggingFaceTB/SmolVLM2-2.2B-Instruct", "smolvlm"),
    "idefics3": Checkpoint("HuggingFaceM4/Idefics3-8B-Llama3", "idefics3"),
    "aya-vision": Checkpoint("CohereLabs/aya-vision-8b", "aya_vision"),
    **{f"gemma-3-{size}": Checkpoint(f"google/gemma-3-{size}-it", "gemma3", _GATED) for size in ("4b", "12b", "27b")},
    "glm-4.1v": Checkpoint("zai-org/GLM-4.1V-9B-Thinking", "glm4v"),
}

_OTHER_SIZES = {
    "llava-onevision": ("llava-hf/llava-onevision-qwen2-{}-ov-hf", "llava_onevision", ("0.5b", "72b")),
    "qwen2-vl": ("Qwen/Qwen2-VL-{}-Instruct", "qwen2_vl", ("2B", "72B")),
    "qwen2.5-vl": ("Qwen/Qwen2.5-VL-{}-Instruct", "qwen2_5_vl", ("32B", "72B")),
    "qwen3-vl": ("Qwen/Qwen3-VL-{}-Instruct", "qwen3_vl", ("2B", "4B", "32B")),
    "qwen3-vl-moe": ("Qwen/Qwen3-VL-{}-Instruct", "qwen3_vl_moe", ("30B-A3B", "235B-A22B")),
    "internvl3": ("OpenGVLab/InternVL3-{}-hf", "internvl", ("1B", "2B", "14B")),
    "internvl3.5": ("OpenGVLab/InternVL3_5-{}-HF", "internvl", ("1B", "2B", "4B", "8B", "14B")),
}
CHECKPOINTS |= {
    f"{short.removesuffix('-moe')}-{size.lower()}": Checkpoint(form.format(size), model_type)
    for short, (form, model_type, all_sizes) in _OTHER_SIZES.items()
    for size in all_sizes
}


EMBEDDED = {"demo": "weights/demo", "demo-qwen": "weights/demo-qwen"}
"""Models that are part of the package: name → directory in `biaskit/demo`."""


_OF_A_CHECKPOINT = ("*config.json", "model*.safetensors*", "pytorch_model*.bin", "tokenizer*")  # priors are safetensors, too


@dataclass(frozen=True)
class Place:
    """Where a checkpoint is: a local directory, or a hub repository; with the short name's note, and `title`, its own name if any."""

    target: str
    local: bool
    note: str = ""
    title: str = ""

    @property
    def name(self) -> str:
        """The name that goes into a prior: the hub id, or the directory's own name."""
        return self.title or (Path(self.target).resolve().name if self.local else self.target)


def resolve(name: str) -> Place:
    """Find out what the user means: a local directory, an embedded model, a short name, or a hub id.

    A directory that has no file of a checkpoint (results of a run, say) does not hide the short name that it is called by.

    Raises:
        ModelError: none of them (the hint offers near short names), or a checkpoint known to need remote code.
    """
    if (there := existing(name)) and there.is_dir():
        short = name in EMBEDDED or name in CHECKPOINTS
        if not short or any(True for form in _OF_A_CHECKPOINT for _ in there.glob(form)):
            return Place(name, local=True)
    if name in EMBEDDED:
        directory = Path(__file__).parents[2] / "demo" / EMBEDDED[name]
        if not (directory / "config.json").is_file():
            make = "make demo-model" + (" ARCHITECTURE=qwen" if name == "demo-qwen" else "")
            raise ModelError(f"this installation has no embedded model {name!r}", f"train it with `{make}` in a checkout")
        return Place(str(directory), local=True, note="an embedded model: tiny, trained on drawn scenes only", title=name)
    if name in CHECKPOINTS:
        return Place(CHECKPOINTS[name].hub_id, local=False, note=CHECKPOINTS[name].note)
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not name.startswith((".", "/")):
        if twin(name):
            raise needs_code(name)
        return Place(name, local=False)
    if "/" in name or name.startswith("."):
        raise ModelError(
            f"there is no checkpoint directory {name}", "check the path, or give a short name (biaskit models list) or a hub id ORG/NAME"
        )
    near = difflib.get_close_matches(name.lower(), [*CHECKPOINTS, *EMBEDDED], n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    raise ModelError(
        f"unknown model {name!r}", hint + "give a short name (biaskit models list), a hub id ORG/NAME, or a checkpoint directory"
    )


_TAUGHT = "as it was taught: biaskit.images.scenes"
EMBEDDED_WORDING = Wording("where is the {} ?", "{}", "{}", _TAUGHT, _TAUGHT, _TAUGHT)
"""Questions to the embedded models are worded as in their training; they answer with a word or a box."""


def wording_of(family: ModelFamily, base: str) -> Wording:
    """Return the question templates of a checkpoint: its family's, or the embedded models'. `base`: its short name, "" for none."""
    return EMBEDDED_WORDING if base in EMBEDDED else family.wording


def box_convention_of(family: ModelFamily, base: str) -> BoxConvention:
    """Return how a checkpoint's answers write boxes. `base`: its short name, "" for none."""
    return BoxConvention("words") if base in EMBEDDED else family.box_convention


def short_name(name: str) -> str:
    """Return the short name of a checkpoint, given its hub id or an embedded model's name; "" if it has none.

    Example:
        >>> short_name("llava-hf/llava-1.5-7b-hf"), short_name("org/other")
        ('llava-1.5', '')
    """
    return next((short for short, known in CHECKPOINTS.items() if known.hub_id == name), name if name in EMBEDDED else "")


def needs_code(name: str) -> ModelError:
    """Return the error for a checkpoint that stock classes cannot load."""
    other = twin(name)
    hint = f"use its HF-format twin {other}" if other else "look for a checkpoint in HF format, usually named …-hf"
    return ModelError(f"{name} needs code of its own, which biaskit does not run", hint)


def twin(hub_id: str) -> str | None:
    """Return the checkpoint in HF format that replaces one with remote or foreign code, or None if none is known.

    Example:
        >>> twin("liuhaotian/llava-v1.5-7b"), twin("org/other")
        ('llava-hf/llava-1.5-7b-hf', None)
    """
    known = {
        "liuhaotian/llava-v1.5-7b": "llava-hf/llava-1.5-7b-hf",
        "liuhaotian/llava-v1.5-13b": "llava-hf/llava-1.5-13b-hf",
        "liuhaotian/llava-v1.6-vicuna-7b": "llava-hf/llava-v1.6-vicuna-7b-hf",
        "liuhaotian/llava-v1.6-vicuna-13b": "llava-hf/llava-v1.6-vicuna-13b-hf",
        "liuhaotian/llava-v1.6-mistral-7b": "llava-hf/llava-v1.6-mistral-7b-hf",
        "OpenGVLab/InternVL2_5-2B": "OpenGVLab/InternVL2_5-2B-MPO-hf (MPO: trained further)",
        "OpenGVLab/InternVL2_5-8B": "OpenGVLab/InternVL2_5-8B-MPO-hf (MPO: trained further)",
    }
    if hub_id in known:
        return known[hub_id]
    if re.fullmatch(r"lmms-lab/llava-onevision-qwen2-(0\.5b|7b|72b)-(ov|si)", hub_id):
        return f"{hub_id.replace('lmms-lab', 'llava-hf')}-hf"
    if re.fullmatch(r"OpenGVLab/InternVL3_5-\d+B(-A\d+B)?", hub_id):
        return f"{hub_id}-HF"
    if re.fullmatch(r"OpenGVLab/InternVL(2_5-\w+-MPO|3-\w+(-Instruct)?)", hub_id):
        return f"{hub_id}-hf"
    return None
