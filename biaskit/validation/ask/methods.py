"""The cells of a validation: method × retention, with the labels that users write and that records carry.

A method is written `name[@key=value…][+prior]`: `none`, `fastv`, `fastv+prior`, `d2pruner@alpha=0.5@theta=0.9+prior`. What follows the plus
is the name of a prior: `prior` for the one that was given without a name. Keys are the method's parameters, or `preset`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

from biaskit.errors import BiaskitError
from biaskit.prior.value import Prior
from biaskit.pruners import Pruner, get_pruner, pruners
from biaskit.registry import did_you_mean
from biaskit.validation.results.labels import UNPRUNED, MethodLabel, cell_label

NONE = UNPRUNED
ABLATION = ("none", "fastv", "fastv+prior", "d2pruner@strength=0", "d2pruner+prior")
"""D2Pruner, Figure 4 left: FastV, debiased importance (DI) alone, structural diversity (SD) alone, DI + SD; and the unpruned model."""
SHORT = {"k": "layer", "tau": "strength", "τ": "strength", "α": "alpha", "θ": "theta", "lambda": "lam", "λ": "lam"}
"""The papers' letters for parameters."""


@dataclass(frozen=True)
class Method:
    """What a label says: a pruner's name (or `none`), settings, and the name of a prior."""

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    prior: str | None = None

    @property
    def label(self) -> str:
        """The label in its one form: settings sorted by name."""
        return str(MethodLabel(self.name, {key: _text(value) for key, value in self.settings.items()}, self.prior))


@dataclass(frozen=True, eq=False)
class Configuration:
    """What is run in a cell: one method at one retention, with the pruner and the prior that carry it out.

    Attributes:
        label: unique within a results directory, such as "fastv+prior/r0.25".
        method: the label without the retention. name: the pruner's registry key, or `none`. title: for people.
        retention: 1.0 for `none`. pruner: what decides; for `none` one that keeps everything.
        prior_name: of the prior that is used, if one is. prior: it.
    """

    label: str
    method: str
    name: str
    title: str
    retention: float
    pruner: Pruner
    prior_name: str | None = None
    prior: Prior | None = None

    @property
    def parameters(self) -> dict[str, Any]:
        """The pruner's full settings, as JSON values; nothing for `none`."""
        if self.name == NONE:
            return {}
        values = {parameter.name: getattr(self.pruner, parameter.name) for parameter in type(self.pruner).parameters()}
        found: dict[str, Any] = json.loads(json.dumps(values, default=str))
        return found


def read_value(text: str) -> Any:
    """Read a number, true, false, null or a list; anything else is text."""
    for read in (json.loads, float):
        try:
            return read(text)
        except ValueError:
            continue
    return text


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def parse_method(text: str) -> Method:
    """Read a label.

    Raises:
        BiaskitError: it does not follow the grammar, or names no pruner.
    """
    label = MethodLabel.read(text.strip())
    if label.name != NONE:
        pruners.get(label.name)
    if label.other:
        hint = "write NAME@KEY=VALUE@KEY=VALUE+prior, such as d2pruner@alpha=0.5+prior"
        raise BiaskitError(f"{text!r}: cannot read {label.other[0]!r}", hint)
    settings = {SHORT.get(key.lower(), key): read_value(value) for key, value in label.settings.items()}
    if label.name == NONE and (settings or label.prior):
        raise BiaskitError(f"{text!r}: the unpruned model has no settings", "write none")
    return Method(label.name, settings, label.prior)


def read_retention(text: str) -> float:
    """Read a share, as a decimal or a fraction (1/9).

    Raises:
        BiaskitError: it is neither, or not in (0, 1].
    """
    try:
        value = float(Fraction(text.strip()))
    except (ValueError, ZeroDivisionError) as error:
        raise BiaskitError(f"retention {text!r} is no number", "write shares of the visual tokens, such as 0.5,0.25,1/9") from error
    if not 0 < value <= 1:
        raise BiaskitError(f"retention is {text.strip()}, not in 0 < r ≤ 1", "it is the share of visual tokens kept: 0.1 keeps a tenth")
    return value


@dataclass(frozen=True, eq=False)
class Grid:
    """What the user wants to compare.

    Attributes:
        methods: labels. retentions: shares kept. layer: K of all methods that act inside the language model and were not told theirs.
        preset: of all methods that have it. sweeps: parameter → values, each of which every method that has the parameter gets in turn, all
            else as it is. ablation: add `ABLATION`. priors: name → prior.
    """

    methods: Sequence[str] = ()
    retentions: Sequence[float] = (0.5, 0.25, 0.1)
    layer: int | None = None
    preset: str | None = None
    sweeps: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    ablation: bool = False
    priors: Mapping[str, Prior] = field(default_factory=dict)

    def cells(self, config: Any) -> list[Configuration]:
        """Return the cells, in the order of the methods, for a checkpoint's config; the same settings are asked only once.

        Raises:
            BiaskitError: a label, a value or a prior that cannot work; nothing has been loaded yet.
        """
        labels = [label for label in self.methods if label.strip()] + list(ABLATION if self.ablation else ())
        if not labels:
            raise BiaskitError("no methods to compare", "name some: none,fastv,fastv+prior (biaskit pruners list), or use --ablation")
        if not self.retentions:
            raise BiaskitError("no retentions", "give shares of the visual tokens, such as 0.5,0.25,0.1")
        found: dict[Any, Configuration] = {}
        for method in self._swept([parse_method(label) for label in labels]):
            for retention in [1.0] if method.name == NONE else self.retentions:
                cell = self._cell(method, retention, config)
                found.setdefault((cell.name, json.dumps(cell.parameters, sort_keys=True), cell.prior_name), cell)
        return list(found.values())

    def _swept(self, methods: list[Method]) -> list[Method]:
        made = list(methods)
        for short, values in self.sweeps.items():
            key = SHORT.get(short.lower(), short)
            fitting = [method for method in methods if method.name != NONE and self._has(method.name, key)]
            if not fitting:
                known = {p.name for method in methods if method.name != NONE for p in pruners.get(method.name).parameters()}
                hint = did_you_mean(short, known - {"retention", "budget"}) if known else "name methods that have parameters beside none"
                raise BiaskitError(f"no method here has the parameter {short!r}", hint)
            made += [replace(method, settings={**method.settings, key: value}) for method in fitting for value in values]
        return made

    @staticmethod
    def _has(name: str, key: str) -> bool:
        """Tell whether a sweep of `key` means a method; methods that act before the language model have no K."""
        default = {parameter.name: parameter.default for parameter in pruners.get(name).parameters()}
        return key in default and (key != "layer" or default["layer"] > 0)

    def _cell(self, method: Method, retention: float, config: Any) -> Configuration:
        if method.name == NONE:
            return Configuration(NONE, NONE, NONE, "no pruning", 1.0, get_pruner("random", retention=1.0, layer=0))
        settings = dict(method.settings)
        if "retention" in settings or "budget" in settings:
            raise BiaskitError(f"{method.label}: how much is kept is not the method's affair", "use --retention")
        preset = settings.pop("preset", self.preset if self.preset in pruners.get(method.name).presets else None)
        if self.layer is not None and self._has(method.name, "layer"):
            settings.setdefault("layer", self.layer)
        pruner = get_pruner(method.name, preset=preset, model_type=config.model_type, retention=retention, **settings)
        name = self._prior_of(method, pruner)
        prior = None if name is None or not pruner.debiases else self.priors[name]
        _check(method.label, pruner, prior, config)
        label = replace(method, prior=name).label
        title = type(pruner).title + (", debiased" if prior is not None and type(pruner).prior == "optional" else "")
        return Configuration(
            cell_label(label, retention), label, method.name, title, retention, pruner, None if prior is None else name, prior
        )

    def _prior_of(self, method: Method, pruner: Pruner) -> str | None:
        """Return the name of the prior that a label means; methods that are nothing without one take the only one there is."""
        if method.prior is None:
            if not (pruner.prior == "required" and pruner.debiases) or not self.priors:
                return None
            if len(self.priors) > 1:
                raise BiaskitError(f"{method.label} does not say which prior", f"write {method.label}+{next(iter(self.priors))}")
            return next(iter(self.priors))
        if type(pruner).prior == "unused" or not (pruner.debiases or _switched_off(pruner)):
            raise BiaskitError(f"{method.label}: {type(pruner).title} does not debias attention", f"leave +{method.prior} away")
        if method.prior not in self.priors:
            known = (
                f"did you mean +{' or +'.join(self.priors)}?" if self.priors else "give it: --prior FILE, or --prior NAME=FILE for +NAME"
            )
            raise BiaskitError(f"{method.label}: there is no prior {method.prior!r}", known)
        return method.prior


def _switched_off(pruner: Pruner) -> bool:
    """Tell whether it is only a setting that keeps a method from using a prior, as at the end of a sweep of τ."""
    return getattr(pruner, "strength", 1.0) == 0 or getattr(pruner, "mode", "") == "uniform"


def _check(label: str, pruner: Pruner, prior: Prior | None, config: Any) -> None:
    """Refuse what cannot work before any weights are loaded."""
    depth = config.get_text_config().num_hidden_layers
    deep = max(stage.layer for stage in pruner.stages())
    if deep >= depth:
        raise BiaskitError(f"{label} acts before layer {deep}, but the model has layers 0 … {depth - 1}", "choose a smaller --layer")
    pruner.check_prior(prior)
    if prior is not None:
        prior.check_model(config.model_type)
