"""The cells of a validation: method × retention, with the labels of `biaskit.pruners.notation`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, Literal

from biaskit.errors import BiaskitError
from biaskit.families import families
from biaskit.prior.value import Prior
from biaskit.pruners import Pruner, get_pruner, pruners
from biaskit.pruners.matching import matched
from biaskit.pruners.notation import DOWNSCALE, NONE, Method, build, check_method, has, parse_method, preset_depth, prior_of, read_key
from biaskit.registry import did_you_mean
from biaskit.validation.results.labels import cell_label

Match = Literal["last", "layer-mean"]
"""What a retention refers to: the tokens in the last layer, or their mean over layers."""
ABLATION = ("none", "fastv", "fastv+prior", "d2pruner@strength=0", "d2pruner+prior")
"""D2Pruner, Figure 4 left: FastV, debiased importance (DI) alone, structural diversity (SD) alone, DI + SD; and the unpruned model."""


@dataclass(frozen=True, eq=False)
class Configuration:
    """A cell: one method at one retention, with its pruner and prior.

    Attributes:
        label: unique within a results directory, such as "fastv+prior/r0.25".
        method: the label without the retention. name: the pruner's registry key, or `none`. title: display name.
        retention: 1.0 for `none`. pruner: for `none` one that keeps everything.
        prior_name, prior: of the prior that is used, if any.
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
        """The pruner's full settings, as JSON values; {} for `none`."""
        if self.name in (NONE, DOWNSCALE):
            return {}
        values = {parameter.name: getattr(self.pruner, parameter.name) for parameter in type(self.pruner).parameters()}
        found: dict[str, Any] = json.loads(json.dumps(values, default=str))
        return found


def read_retention(text: str) -> float:
    """Read a share, as a decimal or a fraction (1/9).

    Raises:
        BiaskitError: it is neither, or not in (0, 1].

    >>> read_retention("1/4"), read_retention("0.25")
    (0.25, 0.25)
    """
    try:
        value = float(Fraction(text.strip()))
    except (ValueError, ZeroDivisionError) as error:
        raise BiaskitError(f"retention {text!r} is not a number", "write shares of the visual tokens, such as 0.5,0.25,1/9") from error
    if not 0 < value <= 1:
        raise BiaskitError(f"retention is {text.strip()}, not in 0 < r ≤ 1", "it is the share of visual tokens kept: 0.1 keeps a tenth")
    return value


@dataclass(frozen=True, eq=False)
class Grid:
    """The methods, retentions and settings to compare.

    Attributes:
        methods: labels. retentions: shares kept. layer: K of all methods that act inside the language model and whose label has no K; by
            default that of the presets.
        match: what a retention refers to: last, the tokens in the last layer, or layer-mean, their mean over layers, for equal cost.
        preset: for all methods that have it. sweeps: parameter → values, applied one at a time to every method with the parameter.
        ablation: add `ABLATION`. priors: name → prior.
    """

    methods: Sequence[str] = ()
    retentions: Sequence[float] = (0.5, 0.25, 0.1)
    layer: int | None = None
    preset: str | None = None
    sweeps: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    ablation: bool = False
    priors: Mapping[str, Prior] = field(default_factory=dict)
    match: Match = "last"

    def cells(self, config: Any) -> list[Configuration]:
        """Return the cells, in the order of the methods, for a checkpoint's config; cells with equal settings are made once.

        Raises:
            BiaskitError: an invalid label, value or prior.
        """
        labels = [label for label in self.methods if label.strip()] + list(ABLATION if self.ablation else ())
        if not labels:
            raise BiaskitError("no methods to compare", "name some: none,fastv,fastv+prior (biaskit pruners list), or use --ablation")
        if not self.retentions:
            raise BiaskitError("no retentions", "give shares of the visual tokens, such as 0.5,0.25,0.1")
        found: dict[Any, Configuration] = {}
        methods = [parse_method(label) for label in labels]
        chosen = preset_depth(methods, self.preset, config.model_type)
        depth = chosen if self.layer is None else self.layer
        for method in self._swept(methods):
            for retention in [1.0] if method.name == NONE else self.retentions:
                cell = self._cell(method, retention, config, depth)
                share = retention if method.name == DOWNSCALE else None  # it has no parameters
                found.setdefault((cell.name, share, json.dumps(cell.parameters, sort_keys=True), cell.prior_name), cell)
        return list(found.values())

    def _swept(self, methods: list[Method]) -> list[Method]:
        made = list(methods)
        for short, values in self.sweeps.items():
            key = read_key(short)
            fitting = [method for method in methods if method.name not in (NONE, DOWNSCALE) and has(method.name, key)]
            if not fitting:
                known = {
                    p.name for method in methods if method.name not in (NONE, DOWNSCALE) for p in pruners.get(method.name).parameters()
                }
                hint = (
                    did_you_mean(short, {"k" if name == "layer" else name for name in known} - {"retention", "budget"})
                    if known
                    else "name methods that have parameters beside none"
                )
                raise BiaskitError(f"no method here has the parameter {short!r}", hint)
            made += [replace(method, settings={**method.settings, key: value}) for method in fitting for value in values]
        return made

    def _cell(self, method: Method, retention: float, config: Any, depth: int | None) -> Configuration:
        whole = get_pruner("random", retention=1.0, layer=0)
        if method.name == NONE:
            return Configuration(NONE, NONE, NONE, "no pruning", 1.0, whole)
        if method.name == DOWNSCALE:
            if families.get(config.model_type).fixed_tokens:
                raise BiaskitError(
                    f"downscale: the processor of {config.model_type} brings every image to one number of visual tokens",
                    "take pool, which averages the grid",
                )
            return Configuration(cell_label(DOWNSCALE, retention), DOWNSCALE, DOWNSCALE, "image scaled down", retention, whole)

        def make(share: float) -> Pruner:
            return build(method, k=depth, preset=self.preset, model_type=config.model_type, retention=share)

        layers = config.get_text_config().num_hidden_layers
        pruner = make(retention)
        if self.match == "layer-mean" and max(stage.layer for stage in pruner.stages()) < layers:
            pruner = matched(make, retention, layers, method.label)
        name = prior_of(method, pruner, self.priors)
        prior = None if name is None or not pruner.debiases else self.priors[name]
        check_method(method.label, pruner, prior, config)
        label = replace(method, prior=name).label
        title = type(pruner).title + (", debiased" if prior is not None and type(pruner).prior == "optional" else "")
        return Configuration(
            cell_label(label, retention), label, method.name, title, retention, pruner, None if prior is None else name, prior
        )
