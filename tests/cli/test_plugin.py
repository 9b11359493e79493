"""A pruner of somebody else's: a real package, built by hatchling and installed by pip, found by its entry point and used by name."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import textwrap

import pytest
from command import biaskit_process

from biaskit.families.checkpoints.tiny import save_tiny
from biaskit.images.generated import GeneratedSource

PYPROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "their-pruners"
version = "1.2.3"

[project.entry-points."biaskit.pruners"]
edges = "their_pruners.edges"
outlook = "their_pruners.outlook"

[project.entry-points."biaskit.families"]
their_llava = "their_pruners.their_llava"
"""

MODULE = '''
from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from biaskit.pruners import Pruner, param, pruners
from biaskit.signals import ATTENTION, Keep, Reading, Signals


@pruners.register("edges")
@dataclass(frozen=True)
class Edges(Pruner):
    """The first and the last tokens of the prompt."""

    name: ClassVar[str] = "edges"
    title: ClassVar[str] = "Their Edges"
    paper: ClassVar[str] = "none"
    needs: ClassVar[frozenset[Reading]] = frozenset({ATTENTION})

    head: int = param(5, "how many of the kept tokens are the first ones")

    def choose(self, signals: Signals, budget: int) -> Keep:
        head = min(self.head, budget)
        tail = torch.arange(len(signals) - (budget - head), len(signals))
        return Keep(torch.cat([tail, torch.arange(head)]), {"recorded": len(signals[ATTENTION])})
'''


OUTLOOK = '''
from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from biaskit.pruners import Pruner, pruners
from biaskit.signals import Keep, Reading, Signals

FEATURES = Reading("hidden", "tower", layer=-3)
ASKED = Reading("attention", queries="text", heads="max")


@pruners.register("outlook")
@dataclass(frozen=True)
class Outlook(Pruner):
    """Tokens that the text looks at and whose features stand out, by two readings that no built-in method takes."""

    name: ClassVar[str] = "outlook"
    title: ClassVar[str] = "Their Outlook"
    paper: ClassVar[str] = "none"
    needs: ClassVar[frozenset[Reading]] = frozenset({FEATURES, ASKED})

    def choose(self, signals: Signals, budget: int) -> Keep:
        features = signals[FEATURES].float()
        unlike = (features - features.mean(0)).norm(dim=1)
        return Keep((signals[ASKED] * unlike).topk(budget).indices, {"widest": float(unlike.max())})
'''

FAMILY = '''
from __future__ import annotations

from biaskit.families import families
from biaskit.families.llava import Llava


@families.register("their_llava")
class TheirLlava(Llava):
    """A model type of their own with the layout of LLaVA-1.5."""

    title = "Their LLaVA"
'''

MODEL = """
import json
from transformers import LlavaConfig, LlavaForConditionalGeneration
from biaskit import get_pruner, prune
from biaskit.engine.image_encoder import encode_once
from biaskit.families import families
from biaskit.testing import check_family, check_pruner, tiny_inputs, tiny_model


class TheirConfig(LlavaConfig):
    model_type = "their_llava"


class TheirModel(LlavaForConditionalGeneration):
    config_class = TheirConfig


stock, processor, _ = tiny_model("llava-1.5")
settings = stock.config.to_dict()
settings.pop("model_type")
model = TheirModel(TheirConfig(**settings)).eval()
model.load_state_dict(stock.state_dict())
model.generation_config = stock.generation_config
family = families.get(model.config.model_type)
check_family(model, processor, family)
outlook = get_pruner("outlook", retention=0.1)
check_pruner(outlook, model="llava-1.5")
inputs = tiny_inputs(family, processor, model.config)
kept = []
ran = []
model.model.vision_tower.register_forward_hook(lambda *_: ran.append(1))
with encode_once(model, outlook.needs):
    for _ in range(2):
        with prune(model, outlook) as pruning:
            model.generate(**inputs, max_new_tokens=2, do_sample=False)
        kept.append([sample.indices.tolist() for sample in pruning.samples])
assert kept[0] == kept[1] and len(ran) == 1
print(json.dumps({"family": family.title, "kept": [len(sample) for sample in kept[0]], "info": pruning.samples[0].info}))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder that the package is installed into, to be put on PYTHONPATH."""
    missing = [name for name in ("pip", "hatchling") if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} cannot be imported: a package cannot be built and installed here without the network")
    root = tmp_path_factory.mktemp("plugin")
    package = root / "project" / "their_pruners"
    package.mkdir(parents=True)
    (root / "project" / "pyproject.toml").write_text(PYPROJECT)
    (package / "__init__.py").write_text("")
    for name, text in (("edges", MODULE), ("outlook", OUTLOOK), ("their_llava", FAMILY)):
        (package / f"{name}.py").write_text(textwrap.dedent(text))
    offline = ["--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", *offline, "--target", str(root / "target"), str(root / "project")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    # the wheel's metadata, not the source next to it, is what the registry reads
    (points,) = (root / "target").glob("their_pruners-1.2.3.dist-info/entry_points.txt")
    assert "[biaskit.pruners]" in points.read_text()
    return root / "target"


@pytest.fixture
def with_plugin(installed, monkeypatch):
    """`biaskit` as it runs where the package is installed."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(installed), os.environ.get("PYTHONPATH")])))
    return biaskit_process


def test_it_is_listed(with_plugin, tmp_path):
    done = with_plugin("pruners", "list", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    found = {item["name"]: item for item in json.loads(done.stdout)}
    assert found["edges"]["title"] == "Their Edges"
    assert found["edges"]["module"] == "their_pruners.edges"
    assert {"d2pruner", "fastv"} <= set(found), "built-in ones stay"
    assert "Their Edges" in with_plugin("pruners", "list", cwd=tmp_path).stdout


def test_its_parameter_is_shown(with_plugin, tmp_path):
    done = with_plugin("pruners", "show", "edges", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.split()[:1] == ["head"]]
    assert "= 5: how many of the kept tokens are the first ones" in line and "[int]" in line
    assert "plug-in: their_pruners.edges" in done.stdout
    shown = json.loads(with_plugin("pruners", "show", "edges", "--json", cwd=tmp_path).stdout)
    assert shown["parameters"][-1]["name"] == "head" and shown["needs"] == ["attention"]


def test_without_the_package_it_is_unknown(tmp_path):
    """Else the tests above would say nothing about the entry point."""
    done = biaskit_process("pruners", "show", "edges", cwd=tmp_path)
    assert done.returncode == 1 and "unknown pruner 'edges'" in done.stderr


def test_it_prunes(with_plugin, tmp_path):
    save_tiny("llava-1.5", tmp_path / "tiny")
    GeneratedSource(1, 0).load(0).save(tmp_path / "picture.png")
    words = ["prune", "--model", "./tiny", "--image", "picture.png", "--max-new-tokens", "2", "--budget", "9", "--pruner", "edges"]
    done = with_plugin(*words, "--set", "head=4", "--compare", "edges", "--overlay", "kept.png", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    none, set_by_hand, default = json.loads(done.stdout)["runs"]
    assert none["method"] == "none" and none["n"] == 576
    assert set_by_hand["method"] == default["method"] == "Their Edges"
    assert set_by_hand["kept"] == [0, 1, 2, 3, 571, 572, 573, 574, 575]
    assert default["kept"] == [0, 1, 2, 3, 4, 572, 573, 574, 575]
    assert set_by_hand["info"] == {"recorded": 576}
    assert set_by_hand["mean_tokens"] == pytest.approx((2 * 576 + 4 * 9) / 6)
    assert (tmp_path / "kept.png").stat().st_size > 1000


def test_a_new_reading_and_a_new_family_are_one_file_each(with_plugin, tmp_path):
    """A pruner whose signals no other method needs, and a model type of their own: found, checked, and used together."""
    code = [sys.executable, "-c", MODEL]
    done = subprocess.run(code, capture_output=True, text=True, timeout=300, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["family"] == "Their LLaVA" and found["kept"] == [58, 58] and found["info"]["widest"] > 0
    shown = json.loads(with_plugin("pruners", "show", "outlook", "--json", cwd=tmp_path).stdout)
    assert shown["needs"] == ["attention[decoder, queries=text, heads=max]", "hidden[tower, layer=-3]"]


def test_wrong_values_for_it_name_what_is_wrong(with_plugin, tmp_path):
    save_tiny("llava-1.5", tmp_path / "tiny")
    GeneratedSource(1, 0).load(0).save(tmp_path / "picture.png")
    words = ["prune", "--model", "./tiny", "--image", "picture.png", "--pruner"]
    typo = with_plugin(*words, "edges", "--set", "haed=4", cwd=tmp_path)
    assert typo.returncode == 1 and "edges has no parameter 'haed'" in typo.stderr and "head" in typo.stderr.replace("'haed'", "")
    name = with_plugin(*words, "egdes", cwd=tmp_path)
    assert name.returncode == 1 and "did you mean edges" in name.stderr
