"""`biaskit prune --compare all`: every method that works with the settings and the model; for the others, the reason is printed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from biaskit.cli.console import say
from biaskit.engine.prune import check_prune
from biaskit.errors import BiaskitError
from biaskit.families.checkpoints.load import Loaded
from biaskit.prior.value import Prior
from biaskit.pruners import Pruner, pruners
from biaskit.pruners.notation import parse_method


def all_methods(named: Sequence[str], priors: Mapping[str, Prior], check: Callable[[str, dict[str, Prior]], Any]) -> list[str]:
    """Return, if `all` is named, every method not named that the settings allow, with the prior it needs; print why others are left out.

    Args:
        named: methods as the user wrote them, and `all`. priors: by name. check: refuses a label with some priors, if it cannot work.
    """
    if "all" not in named:
        return []
    present, found = {parse_method(word).name for word in named if word != "all"}, []
    for name, cls in pruners:
        if name in present:
            continue
        label = f"{name}+{next(iter(priors))}" if cls.prior == "required" and len(priors) == 1 else name
        try:
            check(label, {} if label == name else dict(priors))
            found.append(label)
        except BiaskitError as error:
            say(f"left out: {label}: {error.message}")
    return found


def fits(label: str, pruner: Pruner, prior: Prior | None, loaded: Loaded) -> bool:
    """Whether a method works on a loaded model; if not, the reason is printed."""
    try:
        check_prune(loaded, pruner, prior, lambda line: None)
    except BiaskitError as error:
        say(f"left out: {label}: {error.message}")
        return False
    return True
