"""Read `--model_args`: a checkpoint, a pruner with its parameters, and a prior."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from biaskit.engine.prune import check_prune
from biaskit.errors import BiaskitError
from biaskit.families.checkpoints.load import Loaded, load_model, read_checkpoint
from biaskit.prior.store import load_prior
from biaskit.pruners import get_pruner
from biaskit.pruners.notation import as_choices, read_key

if TYPE_CHECKING:
    from biaskit.prior.value import Prior
    from biaskit.pruners import Pruner

EXAMPLE = "write pretrained=llava-1.5,pruner=d2pruner,retention=0.1,prior=FILE"


@dataclass(frozen=True, eq=False)
class PrunedModel:
    """A checkpoint with its pruner and prior.

    Attributes:
        loaded: the checkpoint. pruner: the method, None for the unpruned model. prior: A_bias, None without.
    """

    loaded: Loaded
    pruner: Pruner | None
    prior: Prior | None


def open_model(
    pretrained: str | None,
    *,
    pruner: str = "none",
    prior: str | None = None,
    preset: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    attention: str = "sdpa",
    revision: str | None = None,
    say: Callable[[str], None],
    **parameters: Any,
) -> PrunedModel:
    """Load the checkpoint and make the pruner of `--model_args`; conflicts are refused before any weights are loaded.

    Args:
        pretrained: as `load_model`'s name. device, dtype, attention, revision: likewise.
        pruner: name of the method, or `none`. prior: file or name of a prior. preset: of the method.
        say: called with messages. parameters: of the method, including `retention` or `budget`, and `k`.

    Raises:
        BiaskitError: something is missing, unknown, or contradictory.
    """
    if pretrained is None:
        raise BiaskitError("no model is named", EXAMPLE)
    settings = {"prior": prior, "preset": preset, **parameters}
    if pruner == "none" and any(value is not None for value in settings.values()):
        given = ", ".join(f"{name}={value}" for name, value in settings.items() if value is not None)
        raise BiaskitError(f"pruner=none takes no {given}", f"name the pruner: {EXAMPLE}")
    if parameters.get("retention") is not None and parameters.get("budget") is not None:
        raise BiaskitError(f"retention={parameters['retention']} and budget={parameters['budget']} are both given", "give one of them")
    name = str(pretrained)
    where = None if revision is None else str(revision)
    method = bias = None
    if pruner != "none":
        _, _, config, _ = read_checkpoint(name, where)
        wanted = {read_key(key): value for key, value in parameters.items()}
        method = get_pruner(str(pruner), preset=preset, model_type=config.model_type, **as_choices(str(pruner), wanted))
        bias = None if prior is None else load_prior(str(prior))
        method.check_prior(bias)
        if bias is not None:
            bias.check_model(config.model_type)
    loaded = load_model(name, device=device, dtype=dtype, attention=attention, revision=where, say=say)
    if method is not None:
        check_prune(loaded, method, bias, say)  # now, not at the first batch
    return PrunedModel(loaded, method, bias)
