"""The base class of pruners: a frozen dataclass of parameters that turns `Signals` into `Keep`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from biaskit.errors import BiaskitError
from biaskit.grid import Layout
from biaskit.prior.value import Prior
from biaskit.pruners.parameters import Parameter, choices, simple_types
from biaskit.pruners.readings import Reading, check_readings
from biaskit.pruners.signals import Signals
from biaskit.registry import did_you_mean
from biaskit.select.keep import Keep, check_answers
from biaskit.select.keep import budget as budget_of

Positions = Literal["original", "compact"]
Similarity = Literal["exact", "model"]
T = TypeVar("T")


def param(default: T, text: str) -> T:
    """Declare a parameter of a pruner: its default and one line on what it does. Used like a dataclass default.

    Example:
        >>> @dataclass(frozen=True)
        ... class Settings:
        ...     floor: int = param(2, "tokens that are always kept")
        >>> Settings().floor
        2
    """
    declared: Any = field(default=default, metadata={"text": text})
    return declared  # type: ignore[no-any-return]


SIMILARITY: Similarity = param("exact", "cosines: exact, or model (rounded to the model's dtype, as in the released code)")
"""Declaration of a parameter of methods that compare tokens by cosine."""


@dataclass(frozen=True)
class Stage:
    """One pruning stage: before decoder layer `layer`, down to `budget` visual tokens, or to the share `retention` of the original N."""

    layer: int
    retention: float | None = None
    budget: int | None = None

    def tokens(self, n_tokens: int) -> int:
        """Return how many of a sample's `n_tokens` visual tokens are kept: 1 … n_tokens.

        Example:
            >>> Stage(2, retention=0.25).tokens(576), Stage(2, budget=64).tokens(10)
            (144, 10)
        """
        if self.budget is not None:
            return min(self.budget, n_tokens)
        assert self.retention is not None
        return budget_of(n_tokens, self.retention)


@dataclass(frozen=True)
class Pruner(ABC):
    """A method. A plug-in subclasses this, sets the class attributes, adds its parameters, and writes `choose`.

    `choose_many` need only be written to decide for a whole batch at once; it must keep what `choose` keeps.

    Example:
        >>> from biaskit.grid import Layout, Plane, raster
        >>> from biaskit.pruners.readings import ATTENTION
        >>> @dataclass(frozen=True)
        ... class Watched(Pruner):
        ...     name = "watched"
        ...     needs = frozenset({ATTENTION})
        ...
        ...     def choose(self, signals, budget):
        ...         return Keep(signals[ATTENTION].topk(budget).indices)
        >>> grid = raster(Plane("image", 1, 4))
        >>> layout = Layout(np.arange(4), grid.planes, grid.plane, grid.row, grid.col)
        >>> seen = Signals(layout, 2, {ATTENTION: torch.tensor([0.1, 0.4, 0.2, 0.3])})
        >>> Watched(retention=0.5).select(seen, 2).indices.tolist()
        [1, 3]

    The class attributes:
        name: registry key. title: the paper's spelling. paper, year, arxiv: where it is from; arxiv may be "".
        acts: where it drops tokens, in words.
        families: the models it works on, in words.
        needs: the readings that `choose` takes from `Signals`; the engine records nothing else.
        merges: share of each tile's patches that remains when the vision tower merges them (ToMe); None: no merging.
        exact: `choose` keeps exactly the budget. False for a method that chooses the number itself.
        takes_budget: `budget` may be given. False if the tower merges, which happens before the prompt is known: only a share works.
        prior: whether `choose` reads `Signals.a_bias`.
        attention_layer: the layer whose attention a prior must have, relative to K.
        presets: named sets of parameters that the paper recommends.
        family_presets: model type → preset → the preset that takes its place for that family.
        deviations: differences from the paper or its code, and why.

    Raises:
        BiaskitError: a parameter is invalid; the message names it and its value.
    """

    name: ClassVar[str] = ""
    title: ClassVar[str] = ""
    paper: ClassVar[str] = ""
    year: ClassVar[int | None] = None
    arxiv: ClassVar[str] = ""
    acts: ClassVar[str] = "inside the language model, before layer K"
    families: ClassVar[str] = "every family"
    needs: ClassVar[frozenset[Reading]] = frozenset()
    exact: ClassVar[bool] = True
    takes_budget: ClassVar[bool] = True
    merges: ClassVar[float | None] = None
    attention_layer: ClassVar[int] = -1
    prior: ClassVar[Literal["required", "optional", "unused"]] = "unused"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    family_presets: ClassVar[Mapping[str, Mapping[str, str]]] = {}
    deviations: ClassVar[tuple[str, ...]] = ()

    retention: float | None = param(None, "share of visual tokens kept, 0 < r ≤ 1; halves are rounded up")
    budget: int | None = param(None, "number of visual tokens kept; overrides retention")
    layer: int = param(2, "K: tokens are dropped before this decoder layer, 0-based; layer K − 1 is read")
    positions: Positions = param("original", "position ids of the kept tokens: original, or compact (renumbered without gaps)")

    def __post_init__(self) -> None:
        """Check the shared parameters; subclasses check their own after calling this."""
        self._check_types()
        self._check_choices()
        if (read := self.readings()) != self.needs:
            object.__setattr__(self, "needs", read)
        if self.retention is None and self.budget is None:
            known = "give retention=0.25, or budget=64" if self.takes_budget else "give retention=0.25"
            raise BiaskitError(f"{self.name} has neither a retention nor a budget", known)
        if self.retention is not None:
            budget_of(1, self.retention)
        if self.budget is not None and (not isinstance(self.budget, int) or self.budget < 1):
            raise BiaskitError(f"budget is {self.budget}, not a whole number from 1", "give a number of visual tokens, or retention=0.25")
        if not isinstance(self.layer, int) or self.layer < 0:
            raise BiaskitError(f"layer is {self.layer}, not a whole number from 0", "0 is before the language model; most papers use 2")
        early = [reading for reading in check_readings(self.needs, self.name) if not reading.exists(self.layer)]
        if early:
            what = f"{', '.join(sorted(map(str, early)))} of layer K − {-min(reading.layer for reading in early)}"
            needed = -min(reading.layer for reading in early)
            raise BiaskitError(
                f"{self.name} reads {what}, but layer is {self.layer}",
                f"give K = {needed} or more: --k {needed}, or layer={needed} in Python",
            )
        if self.budget is not None and not self.takes_budget:
            raise BiaskitError(
                f"budget is {self.budget}, but {self.name} merges every tile before the prompt is known",
                f"give retention={self.budget}/576 or so",
            )

    def readings(self) -> frozenset[Reading]:
        """Return what `choose` reads with these parameters, which becomes `needs`. Override it if the readings depend on parameters.

        Called when the pruner is made, after types and choices of the parameters were checked.
        """
        return self.needs

    @property
    def debiases(self) -> bool:
        """True if a prior, when given, changes the decision."""
        return self.prior != "unused"

    def prior_layers(self) -> tuple[int, ...]:
        """Return the decoder layers that a prior must have, stage by stage; empty if tokens are dropped before the language model."""
        return tuple(layer for stage in self.stages() if (layer := stage.layer + self.attention_layer) >= 0)

    def check_prior(self, prior: Prior | None) -> None:
        """Refuse, before anything runs, a missing prior if one is needed, and a prior without the layers that are read.

        Raises:
            BiaskitError: a prior is needed and missing. PriorError: it lacks a layer.
        """
        if prior is None and self.prior == "required" and self.debiases:
            raise BiaskitError(
                f"{self.name} needs a prior",
                "make one with `biaskit calibrate` and give it: --prior FILE; strength=0 does without",
            )
        if prior is not None and self.debiases:
            for layer in self.prior_layers():
                prior.layer(layer)

    def check_model(
        self,
        model_type: str,
        depth: int,
        revision: str | None = None,
        model: str | None = None,
        processor: Mapping[str, Any] | None = None,
    ) -> None:
        """Refuse, before anything runs, a model that the method's file (weights, schedule) was not made for; others accept any model.

        Args:
            model_type, depth, revision, model: the checkpoint's architecture, number of decoder layers, revision and name, if known.
            processor: its processor's settings (`Loaded.processor_settings`), if known.
        """

    def remarks(self, prior: Prior) -> tuple[str, ...]:
        """Return warnings about a prior that works but may not be the intended one."""
        return ()

    def _check_types(self) -> None:
        """Check every parameter whose type consists of numbers, text and None."""
        for name, allowed in simple_types(type(self)).items():
            value = getattr(self, name)
            kinds = (*allowed, int) if float in allowed else allowed
            if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in allowed):
                wanted = " or ".join("nothing" if kind is type(None) else kind.__name__ for kind in allowed)
                raise BiaskitError(
                    f"{name} is {value!r}, which is not {wanted}", f"`biaskit pruners show {self.name}` tells what {name} takes"
                )

    def _check_choices(self) -> None:
        """Check every parameter whose type is a Literal."""
        for name, allowed in choices(type(self)).items():
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
        allowed = {name: " | ".join(map(str, values)) for name, values in choices(cls).items()}
        kinds = {f.name: allowed.get(f.name, f.type.__name__ if isinstance(f.type, type) else str(f.type)) for f in fields(cls)}
        return tuple(Parameter(f.name, kinds[f.name], f.default, f.metadata.get("text", "")) for f in fields(cls) if f.init)

    def stages(self) -> tuple[Stage, ...]:
        """Return the pruning stages, by ascending layer: one, unless a method overrides it."""
        return (Stage(self.layer, self.retention, self.budget),)

    def fit_prior(self, prior: Prior, layout: Layout, layer: int) -> NDArray[np.float64]:
        """Return a_bias at a sample's visual tokens, [N], for attention of decoder layer `layer`. Every plane is resampled separately."""
        return prior.for_layout(layout, layer)

    def select(self, signals: Signals, budget: int) -> Keep:
        """Decide which visual tokens of one sample are kept.

        If the budget is N or more, all are kept, and `choose` is not called.

        Raises:
            BiaskitError: a signal the pruner needs is missing, or budget is below 1.
        """
        if budget >= len(signals):
            return Keep(torch.arange(len(signals)))
        self._check_signals(signals, budget)
        return check_answers([self.choose(signals, budget)], 1, type(self).__name__)[0].ascending()

    def select_many(self, signals: Sequence[Signals], budgets: Sequence[int]) -> list[Keep]:
        """Decide for several samples, as `select` does for each; samples of equal N and budget go to `choose_many` together.

        Raises:
            BiaskitError: as `select`.
        """
        if not self._chooses_many():
            return [self.select(*each) for each in zip(signals, budgets, strict=True)]
        kept = [Keep(torch.arange(len(sample))) for sample in signals]
        alike: dict[tuple[int, int], list[int]] = {}
        for number, (sample, budget) in enumerate(zip(signals, budgets, strict=True)):
            if budget < len(sample):
                self._check_signals(sample, budget)
                alike.setdefault((len(sample), budget), []).append(number)
        for (_, budget), numbers in alike.items():
            answers = self.choose_many([signals[number] for number in numbers], budget)
            for number, keep in zip(numbers, check_answers(answers, len(numbers), type(self).__name__), strict=True):
                kept[number] = keep.ascending()
        return kept

    def _check_signals(self, signals: Signals, budget: int) -> None:
        if budget < 1:
            raise BiaskitError(f"cannot keep {budget} visual tokens", "keep at least 1")
        missing = sorted(str(need) for need in self.needs if need not in signals)
        if missing:
            raise BiaskitError(f"{self.name} needs {', '.join(missing)}, which was not recorded", "pass these in Signals")

    def _chooses_many(self) -> bool:
        """True if `choose_many` may be used: not if a subclass overrode only `choose` or `select`."""
        names: Any = ({"choose", "choose_many", "select"} & vars(cls).keys() for cls in type(self).__mro__)
        return "choose_many" in next(filter(None, names))

    @abstractmethod
    def choose(self, signals: Signals, budget: int) -> Keep:
        """Return the `budget` visual tokens to keep, in any order; 1 ≤ budget < N, and `signals` has everything in `needs`."""

    def choose_many(self, signals: Sequence[Signals], budget: int) -> list[Keep]:
        """Decide for several samples of equal N, each as `choose` does. Override it to save synchronisations on a GPU."""
        return [self.choose(sample, budget) for sample in signals]
