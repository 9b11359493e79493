"""The priors that come with biaskit: `python tests/support/packaged_priors.py` writes the published laws and the index anew.

The embedded models' priors are what these commands write, with --out priors/NAME.safetensors:

    biaskit calibrate --model demo --data scenes-photo --samples 1000 --seed 1 --layers all --batch-size 25
    … --prompt task:scenes-where --prompt task:scenes-presence --prompt task:scenes-attribute

and the same for demo-qwen.
"""

from __future__ import annotations

import hashlib
import json
import statistics
from pathlib import Path

import numpy as np

from biaskit.files import VERSION
from biaskit.prior.bias.recency import FASTV_CUBIC, fastv_bias, published_slopes, recency_bias
from biaskit.prior.value import PlaneStats, Prior

FOLDER = Path(__file__).parents[2] / "priors"
CITED = 'K. Zhao et al., "Attention Debiasing for Token Pruning in Vision-Language Models", arXiv 2508.17807 v2 (2026)'
LAYERS = (1, 4)
"""The law knows no layers: it is stored for those that the presets read."""


def laws() -> dict[str, Prior]:
    """Return the published recency laws of LLaVA-1.5-7B as priors: for each method the median of its ten slopes, and FastV's cubic."""
    slopes: dict[str, list[float]] = {}
    for found in published_slopes():
        slopes.setdefault(found.method, []).append(found.k)
    made = {}
    for method, values in slopes.items():
        k = statistics.median(values)
        words = f"exp(k·i) over i = 0 … 575, k = {k:.6e}: median of the {len(values)} slopes published for {method}"
        made[f"llava-1.5-recency-{method.lower()}"] = _prior(recency_bias(576, k), words)
    words = f"Σ cⱼ·iʲ over i = 0 … 575, c = {', '.join(f'{c:.9e}' for c in FASTV_CUBIC)}: published for FastV"
    made["llava-1.5-recency-fastv"] = _prior(fastv_bias(576), words)
    return made


def _prior(curve: np.ndarray, words: str) -> Prior:
    maps = np.repeat(curve.reshape(1, 24, 24), len(LAYERS), axis=0).astype(np.float32)
    meta = {
        "kind": "imported", "version": VERSION, "model": "llava-hf/llava-1.5-7b-hf", "model_type": "llava", "n_images": "0",
        "source": CITED, "reduction": f"{words}; mean 1 per layer",
        "note": "chosen benchmark by benchmark by its authors, on images they do not name: not for results on those benchmarks",
    }  # fmt: skip
    return Prior({"image": PlaneStats(maps)}, LAYERS, np.ones(len(LAYERS), np.float32), meta)


def index() -> dict[str, dict[str, object]]:
    """Return what is in each file: checksum, model, layers, planes, images, prompts."""
    found = {}
    for path in sorted(FOLDER.glob("*.safetensors")):
        data = path.read_bytes()
        prior = Prior.from_bytes(data, path.name)
        planes = {name: list(stats.mean.shape[1:]) for name, stats in prior.planes.items()}
        found[path.stem] = {
            "sha256": hashlib.sha256(data).hexdigest(), "kind": prior.meta["kind"], "model": prior.model, "model_type": prior.model_type,
            "layers": list(prior.layers), "planes": planes, "n_images": prior.n_images, "source": prior.meta["source"],
            "prompts": len(json.loads(prior.meta["prompt"])) if "prompt" in prior.meta else 0,
        }  # fmt: skip
    return found


def index_text() -> str:
    """Return the index as it is stored."""
    return json.dumps(index(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for name, prior in laws().items():
        prior.save(FOLDER / f"{name}.safetensors", force=True)
    (FOLDER / "index.json").write_text(index_text(), encoding="utf-8")
