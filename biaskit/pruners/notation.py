"""The notation of methods: `fastv`, `fastv@k=3+prior`, `d2pruner@preset=localization`.

What follows an @ is a parameter of the method, or `preset`; the papers' letters stand for some of them (`LETTERS`), and K is always `k`.
What follows the plus is the name of a prior: `prior` for one given without a name. `none` is the unpruned model;
`downscale` is the unpruned model on a smaller image.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from biaskit.errors import BiaskitError
from biaskit.prior.value import Prior
from biaskit.pruners import Pruner, get_pruner, pruners
from biaskit.pruners.parameters import choices
from biaskit.registry import MethodLabel, did_you_mean

NONE = "none"
DOWNSCALE = "downscale"
"""The unpruned model on an image that is scaled down before the processor sees it; it is not a pruner."""
LETTERS = {"k": "layer", "tau": "strength", "τ": "strength", "α": "alpha", "θ": "theta", "lambda": "lam", "λ": "lam"}
"""The papers' letters for parameters."""


@dataclass(frozen=True)
class Method:
    """What a label says: a pruner's name (or `none`), settings by the pruner's own parameter names, and the name of a prior.

    Example:
        >>> parse_method("fastv@K=3@tau=0.5+prior")
        Method(name='fastv', settings={'layer': 3, 'strength': 0.5}, prior='prior')
        >>> parse_method("fastv@K=3@tau=0.5+prior").label
        'fastv@k=3@strength=0.5+prior'
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    prior: str | None = None

    @property
    def label(self) -> str:
        """The label in canonical form: settings sorted by name, K as `k`."""
        return str(MethodLabel(self.name, {_written(key): _text(value) for key, value in self.settings.items()}, self.prior))


def read_value(text: str) -> Any:
    """Read a number, true, false, null or a list; anything else is text.

    Example:
        >>> read_value("0.5"), read_value("true"), read_value("mis")
        (0.5, True, 'mis')
    """
    for read in (json.loads, float):
        try:
            return read(text)
        except ValueError:
            continue
    return text


def read_key(text: str) -> str:
    """Return the parameter that a key means: `k` is the parameter `layer`, `tau` is `strength`.

    Raises:
        BiaskitError: `layer`, which is a layer of attention everywhere else.

    Example:
        >>> read_key("k"), read_key("tau"), read_key("theta")
        ('layer', 'strength', 'theta')
    """
    if text == "layer":
        raise BiaskitError("a method's layer is written k", "write k=3: tokens are dropped before decoder layer 3, counted from 0")
    return LETTERS.get(text.lower(), text)


def as_choices(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Undo the JSON reading of words that are choices of a parameter: `debias=null` is the null row, not None.

    >>> as_choices("fastv", {"debias": None, "slope": None, "layer": 3})
    {'debias': 'null', 'slope': None, 'layer': 3}
    """
    allowed = choices(pruners.get(name))
    typed = {key: json.dumps(value) for key, value in settings.items() if not isinstance(value, str) and key in allowed}
    return {key: typed[key] if typed.get(key) in allowed.get(key, ()) else value for key, value in settings.items()}


def parse_method(text: str) -> Method:
    """Read a label.

    Raises:
        BiaskitError: it does not follow the grammar, or names no pruner.

    Example:
        >>> parse_method("d2pruner@alpha=0.5+mine")
        Method(name='d2pruner', settings={'alpha': 0.5}, prior='mine')
    """
    label = MethodLabel.read(text.strip())
    name, colon, preset = label.name.partition(":")
    if colon:
        raise BiaskitError(f"{text!r}: a preset is written with an @", f"write {name}@preset={preset}")
    if label.name not in (NONE, DOWNSCALE):
        pruners.get(label.name)
    if label.other:
        hint = "write NAME@KEY=VALUE@KEY=VALUE+prior, such as d2pruner@alpha=0.5+prior"
        raise BiaskitError(f"{text!r}: cannot read {label.other[0]!r}", hint)
    settings = {read_key(key): read_value(value) for key, value in label.settings.items()}
    if label.name in (NONE, DOWNSCALE) and (settings or label.prior):
        raise BiaskitError(f"{text!r}: the unpruned model has no settings", f"write {label.name}")
    return Method(label.name, settings, label.prior)


def has(name: str, parameter: str) -> bool:
    """True if a pruner has a parameter that is set for all methods; methods that act before the language model have no K.

    Example:
        >>> has("fastv", "layer"), has("fastv", "alpha")
        (True, False)
    """
    default = {each.name: each.default for each in pruners.get(name).parameters()}
    return parameter in default and (parameter != "layer" or default["layer"] > 0)


def preset_of(method: Method, preset: str | None) -> str | None:
    """Return the preset of a method: its own, else the one for all, if it has that."""
    own: str | None = method.settings.get("preset", preset if preset in pruners.get(method.name).presets else None)
    return own


def preset_depth(methods: Sequence[Method], preset: str | None, model_type: str | None = None) -> int | None:
    """Return the K that the presets of some methods choose, for all those compared with them; None if they choose none, or several.

    Methods that act at different depths give different answers for that reason alone.

    Raises:
        BiaskitError: no method has this preset.

    Example:
        >>> preset_depth([parse_method("fastv"), parse_method("d2pruner+prior")], "localization", "llava")
        5
    """
    known = {name for method in methods if method.name not in (NONE, DOWNSCALE) for name in pruners.get(method.name).presets}
    if preset is not None and preset not in known:
        raise BiaskitError(f"no method here has the preset {preset!r}", did_you_mean(preset, known) if known else "remove --preset")
    found = set()
    for method in methods:
        chosen = None if method.name in (NONE, DOWNSCALE) else preset_of(method, preset)
        if chosen is not None and has(method.name, "layer"):
            cls = pruners.get(method.name)
            found.add(cls.presets.get(cls.family_presets.get(model_type or "", {}).get(chosen, chosen), {}).get("layer"))
    return found.pop() if len(found) == 1 else None


def build(method: Method, *, k: int | None = None, preset: str | None = None, model_type: str | None = None, **share: Any) -> Pruner:
    """Build the pruner of a method.

    Args:
        method: the parsed label; its own settings override the others.
        k: K, for a method that acts inside the language model and does not give its own.
        preset: for a method that has it and does not name one.
        model_type: as for `get_pruner`.
        share: `retention` or `budget`.

    Raises:
        BiaskitError: as `get_pruner`; or the label has a retention or budget.

    Example:
        >>> build(parse_method("fastv"), k=3, retention=0.1).layer, build(parse_method("fastv@k=4"), k=3, retention=0.1).layer
        (3, 4)
    """
    if method.name == DOWNSCALE:
        raise BiaskitError("downscale is not a pruner: it scales the image before the processor sees it", "use it in `biaskit validate`")
    settings = as_choices(method.name, method.settings)
    if "retention" in settings or "budget" in settings:
        raise BiaskitError(f"{method.label}: a label does not say how many tokens are kept", "use --retention")
    if k is not None and has(method.name, "layer"):
        settings.setdefault("layer", k)
    settings.pop("preset", None)
    return get_pruner(method.name, preset=preset_of(method, preset), model_type=model_type, **share, **settings)


def prior_of(method: Method, pruner: Pruner, priors: Mapping[str, Prior]) -> str | None:
    """Return the name of the prior that a method uses; a method that requires one takes the only one if its label has no name.

    Raises:
        BiaskitError: there is no such prior, several priors and no name, or the method does not debias.
    """
    if method.prior is None:
        if not (pruner.prior == "required" and pruner.debiases) or not priors:
            return None
        if len(priors) > 1:
            raise BiaskitError(f"{method.label} does not say which prior", f"write {method.label}+{next(iter(priors))}")
        return next(iter(priors))
    if type(pruner).prior == "unused" or not (pruner.debiases or _switched_off(pruner)):
        raise BiaskitError(f"{method.label}: {type(pruner).title} does not debias attention", f"remove +{method.prior}")
    if method.prior not in priors:
        known = f"did you mean +{' or +'.join(priors)}?" if priors else "give it: --prior FILE, or --prior NAME=FILE for +NAME"
        raise BiaskitError(f"{method.label}: there is no prior {method.prior!r}", known)
    return method.prior


def check_method(label: str, pruner: Pruner, prior: Prior | None, config: Any) -> None:
    """Check a method against a checkpoint's config, before any weights are loaded.

    Raises:
        BiaskitError: it acts at a layer the model does not have, or needs a prior. PriorError: another model's prior, or a missing layer.
    """
    depth = config.get_text_config().num_hidden_layers
    deep = max(stage.layer for stage in pruner.stages())
    if deep >= depth:
        raise BiaskitError(f"{label} acts before layer {deep}, but the model has layers 0 … {depth - 1}", "choose a smaller --k")
    pruner.check_model(config.model_type, depth)
    pruner.check_prior(prior)
    if prior is not None:
        prior.check_model(config.model_type)


def depths(pruner: Pruner) -> str:
    """Return the decoder layers before which a method drops tokens, as text: `2`, or `8, 16, 24` for one with several stages.

    >>> depths(build(parse_method("fastv@k=3"), retention=0.5))
    '3'
    """
    return ", ".join(str(stage.layer) for stage in pruner.stages())


def _switched_off(pruner: Pruner) -> bool:
    """True if only a setting keeps a method from using its prior, as τ = 0 does in a sweep."""
    return getattr(pruner, "strength", 1.0) == 0 or getattr(pruner, "mode", "") == "uniform"


def _written(key: str) -> str:
    return "k" if key == "layer" else key


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
