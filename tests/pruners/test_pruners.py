"""The contract all pruners share, built in or not, and their registry."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from samples import schedule_of, signals

from biaskit.engine.made_up import sample_signals
from biaskit.errors import BiaskitError
from biaskit.pruners import Pruner, Stage, get_pruner, pruners
from biaskit.pruners.readings import MERGED, Reading, check_readings
from biaskit.pruners.readings import NAMES as READINGS
from biaskit.pruners.signals import Signals
from biaskit.select.keep import Keep

NAMES = pruners.names()
TRAINED: dict[str, Any] = {}


@pytest.fixture(scope="module", autouse=True)
def files(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Weights for a trained scorer of made-up features, and a schedule."""
    file = tmp_path_factory.mktemp("weights") / "selector.safetensors"
    parts = {
        f"{part}_proj.{kind}": torch.ones(3, 12) if kind == "weight" else torch.ones(3) for part in "qk" for kind in ("weight", "bias")
    }
    parts["q_proj.weight"] = torch.arange(36.0).view(3, 12)
    save_file(parts, file)
    TRAINED["visionselector"] = {"weights": str(file)}
    TRAINED["fitprune"] = {"schedule": schedule_of("llava", 12)}


def build(name: str, **parameters: Any) -> Pruner:
    return get_pruner(name, **TRAINED.get(name, {}), **parameters)


def share_of(name: str, n: int, total: int) -> dict[str, Any]:
    """How a method is told to keep n of a total: as a number, or as a share where it takes no number."""
    return {"budget": n} if pruners.get(name).takes_budget else {"retention": n / total}


def left_of(pruner: Pruner, seen: Signals, budget: int) -> int:
    """How many tokens a decision leaves: the budget, or all that the vision tower made of its patches by merging."""
    return budget if pruner.merges is None else sum(len(part.unique()) for part in seen.patches(MERGED))


def seen_by(pruner: Pruner, where: tuple[int, int] = (6, 6), more: frozenset[Reading] = frozenset()) -> Signals:
    """Made-up signals with what a pruner reads, and more if wanted."""
    return sample_signals(signals(where).layout, frozenset(pruner.needs) | more, layer=pruner.stages()[0].layer)


@pytest.mark.parametrize("name", NAMES)
class TestContract:
    def test_description(self, name: str) -> None:
        cls = pruners.get(name)
        assert cls.name == name
        assert cls.title
        assert cls.paper
        assert cls.acts
        assert cls.families
        assert check_readings(cls.needs, name) == cls.needs
        assert cls.prior in ("required", "optional", "unused")
        assert all(parameter.text for parameter in cls.parameters())
        for preset in cls.presets:
            assert build(name, preset=preset, **share_of(name, 4, 9)).name == name

    def test_keeps_the_budget_in_order(self, name: str) -> None:
        pruner = build(name, retention=0.3)
        keep = pruner.select(seen_by(pruner), 11)
        assert pruner.exact or not pruner.takes_budget
        assert isinstance(keep, Keep)
        assert keep.indices.dtype == torch.int64
        assert len(keep) == left_of(pruner, seen_by(pruner), 11)
        assert all(a < b for a, b in pairwise(keep.indices.tolist()))
        assert 0 <= int(keep.indices[0]) <= int(keep.indices[-1]) < 36
        assert all(isinstance(value, int | float) for value in keep.info.values())

    def test_same_signals_same_answer(self, name: str) -> None:
        pruner = build(name, retention=0.3)
        assert torch.equal(pruner.select(seen_by(pruner), 11).indices, pruner.select(seen_by(pruner), 11).indices)

    def test_everything_kept_without_asking(self, name: str) -> None:
        pruner, nothing = build(name, retention=1.0), Signals(signals().layout, 2)
        for n in (36, 99):
            assert pruner.select(nothing, n).indices.tolist() == list(range(36))

    def test_one_token(self, name: str) -> None:
        pruner = build(name, retention=0.01)
        assert pruner.select(seen_by(pruner, (1, 1)), 1).indices.tolist() == [0]
        assert len(pruner.select(seen_by(pruner), 1)) == left_of(pruner, seen_by(pruner), 1)
        with pytest.raises(BiaskitError, match="cannot keep 0 visual tokens"):
            pruner.select(seen_by(pruner), 0)

    def test_reads_only_what_it_asks_for(self, name: str) -> None:
        pruner = build(name, retention=0.3)
        everything = seen_by(pruner, more=frozenset(READINGS))
        assert torch.equal(pruner.select(seen_by(pruner), 11).indices, pruner.select(everything, 11).indices)
        for need in pruner.needs:
            without = {reading: values for reading, values in everything.readings.items() if reading != need}
            with pytest.raises(BiaskitError, match=re.escape(f"{name} needs {need}")):
                pruner.select(dataclasses.replace(everything, readings=without), 11)

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({}, "has neither a retention nor a budget"),
            ({"retention": 0.0}, "retention is 0.0"),
            ({"retention": 1.5}, "retention is 1.5"),
            ({"budget": 0}, "budget is 0"),
            ({"budget": 1.5}, "budget is 1.5"),
            ({"budget": 4, "layer": -1}, "layer is -1"),
            ({"budget": 4, "layer": 0.5}, "layer is 0.5"),
            ({"budget": 4, "positions": "kept"}, "positions is 'kept'"),
            ({"budget": 4, "retentoin": 0.1}, "has no parameter 'retentoin'"),
        ],
    )
    def test_refuses_nonsense(self, name: str, wrong: dict[str, Any], message: str) -> None:
        with pytest.raises(BiaskitError, match=message) as caught:
            get_pruner(name, **wrong)
        assert caught.value.hint

    def test_stages(self, name: str) -> None:
        stages = build(name, retention=0.25, layer=3).stages()
        assert stages[0].layer == 3
        assert (stages[-1].tokens(10), stages[-1].tokens(1)) == (3, 1)
        assert all(a.layer < b.layer and a.tokens(10) >= b.tokens(10) for a, b in pairwise(stages))
        stages = build(name, **{"retention": 0.25, **share_of(name, 64, 576)}).stages()
        assert (stages[-1].tokens(576), stages[-1].tokens(10)) == (64, 10 if pruners.get(name).takes_budget else 1)

    def test_a_number_is_taken_or_refused(self, name: str) -> None:
        if pruners.get(name).takes_budget:
            assert build(name, budget=4).budget == 4
            return
        with pytest.raises(BiaskitError, match=f"budget is 4, but {name} merges every tile") as caught:
            build(name, budget=4)
        assert "retention=4/576" in caught.value.hint

    def test_frozen(self, name: str) -> None:
        with pytest.raises(dataclasses.FrozenInstanceError):
            build(name, retention=0.5).layer = 4  # type: ignore[misc]


PLUGIN = '''
from dataclasses import dataclass
from typing import ClassVar
import torch
from biaskit.pruners import Pruner, param, pruners
from biaskit.signals import Keep


@pruners.register("last")
@dataclass(frozen=True)
class Last(Pruner):
    """The last tokens."""

    name: ClassVar[str] = "last"
    title: ClassVar[str] = "Last"
    offset: int = param(0, "how many tokens to leave out at the end")

    def choose(self, signals, budget):
        return Keep(torch.arange(len(signals) - self.offset - budget, len(signals) - self.offset))
'''


def test_a_third_party_pruner(tmp_path: Path) -> None:
    """A distribution with an entry point in biaskit.pruners is found by name, like the built-ins."""
    (tmp_path / "last_tokens.py").write_text(PLUGIN)
    (tmp_path / "broken_tokens.py").write_text("raise RuntimeError('not today')")
    info = tmp_path / "last_tokens-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: last-tokens\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[biaskit.pruners]\nlast = last_tokens\nbroken = broken_tokens\n")
    code = "from biaskit.pruners import get_pruner, pruners; print(pruners.names(), get_pruner('last', budget=3, offset=1))"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {code}"], capture_output=True, text=True, check=True
    )
    assert "'last'" in done.stdout
    assert "'fastv'" in done.stdout
    assert "offset=1" in done.stdout
    assert "pruner plug-in 'broken' (broken_tokens) failed to load: RuntimeError: not today; it is left out" in done.stderr


def test_registry_refuses_a_second_owner_of_a_name() -> None:
    class Other(Pruner):
        """Not FastV."""

        def choose(self, signals: Signals, budget: int) -> Keep:
            return Keep(torch.arange(budget))

    with pytest.raises(ValueError, match="pruner 'fastv' is already FastV"):
        pruners.register("fastv")(Other)
    assert pruners.get("fastv").title == "FastV"
    assert isinstance(get_pruner("fastv", budget=2).stages()[0], Stage)
    with pytest.raises(BiaskitError, match="unknown pruner 'divprun'") as caught:
        get_pruner("divprun")
    assert "divprune" in caught.value.hint


def test_what_pruners_import() -> None:
    code = (
        "import sys; from biaskit.pruners import pruners; pruners.names();"
        "print([m for m in ('transformers', 'matplotlib') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
