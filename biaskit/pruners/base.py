"""What a pruner is: a frozen dataclass of parameters that turns `Signals` into `Keep`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal, TypeVar, get_args, get_origin, get_type_hints

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from biaskit.errors import BiaskitError
from biaskit.grid import Layout
from biaskit.prior import Prior
from biaskit.prior_layout import PriorLayout, lay
from biaskit.registry import did_you_mean
from biaskit.select import relative_attention
from biaskit.select.scores import Mode
from biaskit.signals import NEEDS, Keep, Signals
from biaskit.signals import budget as budget_of

Positions = Literal["original", "compact"]
T = TypeVar("T")


def param(default: T, text: str) -> T:
    """Declare a parameter of a pruner: its default and what it does, in one line for people. Used like a dataclass default."""
    declared: Any = field(default=default, metadata={"text": text})
    return declared  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Parameter:
    """A parameter as the registry shows it: its name, type, default and what it does."""

    name: str
    type: str
    default: Any
    text: str


@dataclass(frozen=True)
class Stage:
    """One narrowing of the sequence: before decoder layer `layer`, to `budget` visual tokens, or to `retention` of the original N."""

    layer: int
    retention: float | None = None
    budget: int | None = None

    def tokens(self, n_tokens: int) -> int:
        """Return how many of a sample's `n_tokens` visual tokens stay: 1 … n_tokens."""
        if self.budget is not None:
            return min(self.budget, n_tokens)
        assert self.retention is not None
        return budget_of(n_tokens, self.retention)


@dataclass(frozen=True)
class Pruner(ABC):
    """A method. A plug-in subclasses this, sets the class attributes, adds its parameters, and writes `choose`.

    The class attributes:
        name: registry key. title: the paper's spelling. paper, year, arxiv: where it is from; arxiv may be "".
        acts: where it drops tokens, in words.
        needs: what `choose` reads of `Signals` (see `biaskit.signals.NEEDS`); the engine records nothing else.
        prior: whether `choose` reads `Signals.a_bias`.
        presets: named sets of parameters that the paper recommends.
        family_presets: model type → preset → the preset that takes its place for that family.
        deviations: how this differs from the paper or its code, and why.

    Raises:
        BiaskitError: a parameter that makes no sense; the message names it and its value.
    """

    name: ClassVar[str] = ""
    title: ClassVar[str] = ""
    paper: ClassVar[str] = ""
    year: ClassVar[int | None] = None
    arxiv: ClassVar[str] = ""
    acts: ClassVar[str] = "inside the language model, before layer K"
    needs: ClassVar[frozenset[str]] = frozenset()
    prior: ClassVar[Literal["required", "optional", "unused"]] = "unused"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    family_presets: ClassVar[Mapping[str, Mapping[str, str]]] = {}
    deviations: ClassVar[tuple[str, ...]] = ()

    retention: float | None = param(None, "share of visual tokens kept, 0 < r ≤ 1; halves are rounded up")
    budget: int | None = param(None, "number of visual tokens kept; wins over retention")
    layer: int = param(2, "K: tokens are dropped before this decoder layer, 0-based; layer K − 1 is looked at")
    positions: Positions = param("original", "position ids of what is kept: original, or compact (renumbered without gaps)")

    def __post_init__(self) -> None:
        """Refuse what makes no sense; subclasses check their own parameters after calling this."""
        self._check_types()
        if self.retention is None and self.budget is None:
            raise BiaskitError(f"{self.name} was not told how many visual tokens to keep", "give retention=0.25, or budget=64")
        if self.retention is not None:
            budget_of(1, self.retention)
        if self.budget is not None and (not isinstance(self.budget, int) or self.budget < 1):
            raise BiaskitError(f"budget is {self.budget}, not a whole number from 1", "give a number of visual tokens, or retention=0.25")
        if not isinstance(self.layer, int) or self.layer < 0:
            raise BiaskitError(f"layer is {self.layer}, not a whole number from 0", "0 is before the language model; most papers use 2")
        unknown = self.needs - NEEDS
        if unknown:
            raise BiaskitError(f"{self.name} needs {', '.join(sorted(unknown))}", did_you_mean(min(unknown), NEEDS))
        inside = self.needs - {"embeds"}
        if inside and self.layer == 0:
            raise BiaskitError(f"{self.name} reads {', '.join(sorted(inside))} of layer K − 1, but layer is 0", "give layer=1 or more")
        self._check_choices()

    @property
    def debiases(self) -> bool:
        """Whether a prior, if there is one, changes the decision."""
        return self.prior != "unused"

    def check_prior(self, prior: Prior | None) -> None:
        """Refuse, before anything runs, to do without a prior that is needed, or with one that lacks the layers that are read.

        Raises:
            BiaskitError: there is none. PriorError: it has no such layer.
        """
        if prior is None and self.prior == "required" and self.debiases:
            raise BiaskitError(
                f"{self.name} needs a prior",
                "make one with `biaskit calibrate` and give it: --prior FILE, in Python prior=…; strength=0 does without",
            )
        if prior is not None and self.debiases:
            for stage in self.stages():
                if stage.layer:
                    prior.layer(stage.layer - 1)

    def _check_types(self) -> None:
        """Check every parameter whose type is made of numbers, text and None alone."""
        for name, allowed in _simple_types(type(self)).items():
            value = getattr(self, name)
            kinds = (*allowed, int) if float in allowed else allowed
            if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in allowed):
                wanted = " or ".join("nothing" if kind is type(None) else kind.__name__ for kind in allowed)
                raise BiaskitError(
                    f"{name} is {value!r}, which is no {wanted}", f"`biaskit pruners show {self.name}` tells what {name} takes"
                )

    def _check_choices(self) -> None:
        """Check every parameter whose type is a Literal."""
        for name, allowed in _choices(type(self)).items():
            value = getattr(self, name)
            if value not in allowed:
                raise BiaskitError(f"{name} is {value!r}", did_you_mean(str(value), map(str, allowed)))

    def check_range(self, name: str, low: float, high: float) -> None:
        """Raise BiaskitError if parameter `name` is outside low … high."""
        value = getattr(self, name)
        if not low <= value <= high:
            raise BiaskitError(f"{name} is {value}, not between {low} and {high}", f"choose {name} in {low} … {high}")

    @classmethod
    def parameters(cls) -> tuple[Parameter, ...]:
        """Return the parameters, the shared ones first."""
        choices = {name: " | ".join(map(str, allowed)) for name, allowed in _choices(cls).items()}
        return tuple(
            Parameter(
                f.name,
                choices.get(f.name, f.type.__name__ if isinstance(f.type, type) else str(f.type)),
                f.default,
                f.metadata.get("text", ""),
            )
            for f in fields(cls)
            if f.init
        )

    def stages(self) -> tuple[Stage, ...]:
        """Return the narrowings, by ascending layer. One, unless a method says otherwise."""
        return (Stage(self.layer, self.retention, self.budget),)

    def fit_prior(self, prior: Prior, layout: Layout, layer: int) -> NDArray[np.float64]:
        """Return a_bias at a sample's visual tokens, [N], for attention of decoder layer `layer`. Every plane is resampled on its own."""
        return prior.for_layout(layout, layer)

    def select(self, signals: Signals, budget: int) -> Keep:
        """Decide which visual tokens of one sample stay.

        If everything may stay, everything does, and the method is not asked.

        Raises:
            BiaskitError: a signal the pruner needs is missing, or budget is below 1.
        """
        if budget >= len(signals):
            return Keep(torch.arange(len(signals)))
        if budget < 1:
            raise BiaskitError(f"cannot keep {budget} visual tokens", "keep at least 1")
        missing = [need for need in sorted(self.needs) if getattr(signals, need) is None]
        if missing:
            raise BiaskitError(f"{self.name} needs {', '.join(missing)}, which was not recorded", "pass these in Signals")
        keep = self.choose(signals, budget)
        return Keep(keep.indices.sort().values, keep.info)

    @abstractmethod
    def choose(self, signals: Signals, budget: int) -> Keep:
        """Decide which `budget` of the N visual tokens stay; 1 ≤ budget < N, and everything in `needs` is there. Any order of indices."""


def _choices(cls: type[Pruner]) -> dict[str, tuple[Any, ...]]:
    """The allowed values of every parameter whose type is a Literal."""
    try:
        hints = get_type_hints(cls)
    except NameError:  # a plug-in whose types exist for the type checker only
        return {}
    return {name: get_args(hint) for name, hint in hints.items() if get_origin(hint) is Literal}


def _simple_types(cls: type[Pruner]) -> dict[str, tuple[type, ...]]:
    """The types of every parameter that is declared with numbers, text and None alone."""
    try:
        hints = get_type_hints(cls)
    except NameError:
        return {}
    simple = {int, float, bool, str, type(None)}
    parts = {f.name: get_args(hints[f.name]) or (hints[f.name],) for f in fields(cls) if f.name in hints}
    return {name: kinds for name, kinds in parts.items() if simple.issuperset(kinds)}


@dataclass(frozen=True)
class AttentionPruner(Pruner):
    """A method that reads attention. With a prior it can be debiased: A_ori / (A_bias^τ + ε) instead of A_ori."""

    needs: ClassVar[frozenset[str]] = frozenset({"attention"})
    prior: ClassVar[Literal["required", "optional", "unused"]] = "optional"

    strength: float = param(1.0, "τ of the debiasing A_ori / (A_bias^τ + ε): 0 is raw attention, 1 the paper's ratio")
    mode: Mode = param("ratio", "debiasing: ratio, difference of normalised maps, or uniform (control: a flat prior)")
    eps: float = param(1e-7, "ε of the debiasing")
    prior_layout: PriorLayout = param("grid2d", "how the prior is brought to the sample's grid: grid2d, flat1d or repeat")

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        super().__post_init__()
        self.check_range("strength", 0, 1)
        self.check_range("eps", 0, 1)

    @property
    def debiases(self) -> bool:
        """Whether a prior changes the score: not where attention is not read, and not with strength 0 or mode uniform."""
        return "attention" in self.needs and self.strength > 0 and self.mode != "uniform"

    def fit_prior(self, prior: Prior, layout: Layout, layer: int) -> NDArray[np.float64]:
        """Return a_bias at a sample's visual tokens, [N], by `prior_layout`."""
        return lay(prior, layout, layer, self.prior_layout)

    def score(self, signals: Signals) -> Tensor:
        """Return the debiased score of every visual token, [N]; the raw attention if there is no prior.

        Raises:
            BiaskitError: there is no attention, or no prior although the method is nothing without one.
        """
        if signals.attention is None:
            raise BiaskitError(f"{self.name} needs attention, which was not recorded", "pass it in Signals")
        if signals.a_bias is not None:
            return relative_attention(signals.attention, signals.a_bias, strength=self.strength, mode=self.mode, eps=self.eps)
        if self.prior == "required" and self.strength > 0 and self.mode != "uniform":
            raise BiaskitError(f"{self.name} needs a prior", "pass prior=…, make one with `biaskit calibrate`, or use strength=0")
        return signals.attention.to(torch.float32)
