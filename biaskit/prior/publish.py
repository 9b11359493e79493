"""Publish a prior on the Hugging Face hub: the file, a card made of its metadata, and its checksum, in one commit."""

from __future__ import annotations

import hashlib
import re

from biaskit.errors import PriorError
from biaskit.prior.bias.report import report
from biaskit.prior.hub import HUB_FILE, HUB_SECONDS, SUMS, OnHub, hub_errors, within
from biaskit.prior.value import Prior


def push_prior(prior: Prior, repo: str, *, private: bool = False) -> OnHub:
    """Publish a prior: `prior.safetensors`, a card made of its metadata, and its checksum, in one commit.

    Args:
        repo: org/repo, created if it does not exist.

    Raises:
        PriorError: not logged in (`hf auth login`), no right to write, or the hub cannot be reached.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
        raise PriorError(f"{repo!r} cannot be a hub repository", "write org/repo")
    data = prior.to_bytes()
    digest = hashlib.sha256(data).hexdigest()
    files = {HUB_FILE: data, SUMS: f"{digest}  {HUB_FILE}\n".encode(), "README.md": card(prior, repo, digest).encode()}
    with hub_errors(repo, HUB_FILE):
        from huggingface_hub import CommitOperationAdd, HfApi

        def send() -> str:
            api = HfApi()
            api.create_repo(repo, private=private, exist_ok=True)
            parts = [CommitOperationAdd(name, content) for name, content in files.items()]
            return str(api.create_commit(repo, parts, commit_message=f"Prior of {prior.model or prior.model_type}").oid)

        commit = within(HUB_SECONDS, send)
    return OnHub(repo, HUB_FILE, commit, digest)


def card(prior: Prior, repo: str, digest: str) -> str:
    """Return the card of a prior: model, provenance, use, checksum. All of it is in the file's metadata as well."""
    meta = prior.meta
    base = [f"base_model: {prior.model}"] if re.fullmatch(r"[\w.-]+/[\w.-]+", prior.model) else []
    front = ["---", "library_name: biaskit", *base, "tags:", "- biaskit", "- attention-prior", "---"]
    shown = [
        "kind",
        "model",
        "revision",
        "model_type",
        "prompt",
        "source",
        "n_images",
        "n_skipped",
        "seed",
        "dtype",
        "attention",
        "reduction",
        "note",
    ]
    facts = [f"| {key} | {_cell(meta[key])} |" for key in shown if meta.get(key)]
    rows = [f"| {layer.layer} | {layer.plane} | {layer.verdict} | {_cell(layer.why)} |" for layer in report(prior).layers]
    planes = ", ".join(f"{name} {stats.mean.shape[1]}×{stats.mean.shape[2]}" for name, stats in prior.planes.items())
    name = repo.partition("/")[2]
    what = (
        "Attention of the last prompt token on every visual token, averaged over images (A_bias of D²Pruner, arXiv 2512.19443). Layers "
        f"{', '.join(map(str, prior.layers))}, counted from 0; planes {planes}. It holds for its prompt and for this checkpoint."
    )
    return "\n".join([
        *front, "", f"# Where {prior.model or prior.model_type} looks, independent of the image", "",
        what, "",
        "```console", f"$ biaskit priors pull {repo}", f"$ biaskit heatmap {name}", "```", "",
        f"sha256 of `{HUB_FILE}`: `{digest}`", "", "| made with | |", "|---|---|", *facts, "",
        "| layer | plane | verdict | why |", "|---|---|---|---|", *rows, "",
    ])  # fmt: skip


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())[:400]
