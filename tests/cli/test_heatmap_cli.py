from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from biaskit.cli.heatmap import heatmap
from biaskit.errors import BiaskitError, PriorError
from biaskit.prior.value import PlaneStats, Prior

app = typer.Typer()
app.command()(heatmap)


def save(path, planes, layers, model):
    stats = {name: PlaneStats(np.repeat(m[None].astype(np.float32), len(layers), axis=0)) for name, m in planes.items()}
    meta = {"model": model, "n_images": "20", "prompt": '["What is it?"]'}
    Prior(stats, layers, np.full(len(layers), 0.3, np.float32), meta).save(path)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with two priors: bottom.safetensors (layers 1 and 4) and, in ./priors, ring (layer 1, three planes)."""
    monkeypatch.chdir(tmp_path)
    bottom = np.ones((12, 12))
    bottom[8:] = 4
    ring = np.full((12, 16), 4.0)
    ring[2:-2, 2:-2] = 1
    save(tmp_path / "bottom.safetensors", {"image": bottom}, (1, 4), "org/bottom")
    (tmp_path / "priors").mkdir()
    maps = {"canvas": ring, "base": np.ones((6, 6)), "newline": np.ones((12, 1))}
    save(tmp_path / "priors" / "ring.safetensors", maps, (1,), "org/ring")
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(app, [*arguments], catch_exceptions=True)


def test_default_figure_and_text(folder):
    result = run("bottom.safetensors")
    assert result.exit_code == 0, result.output
    assert result.stdout == (
        "bottom-heatmap.png\n"
        "layer 1, image 12×12: bottom-focused. The bottom third holds 66.7% of the mass, 2.00 × uniform; "
        "rank correlation with token order 0.82, but not as a straight ramp (R² 0.67).\n"
        "layer 4, image 12×12: bottom-focused. The bottom third holds 66.7% of the mass, 2.00 × uniform; "
        "rank correlation with token order 0.82, but not as a straight ramp (R² 0.67).\n"
    )
    assert (folder / "bottom-heatmap.png").read_bytes().startswith(b"\x89PNG")


def test_several_priors_by_name_with_options(folder):
    result = run("ring", "bottom.safetensors", "--layers", "1", "--labels", "one,two", "--out", "fig.svg", "--title", "Both")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == "fig.svg"
    assert lines[1].startswith("ring, layer 1, canvas 12×16: periphery-focused. The outer ring holds")
    assert lines[2].startswith("bottom.safetensors, layer 1, image 12×12: bottom-focused.")
    assert "<svg" in (folder / "fig.svg").read_text()


def test_json(folder):
    result = run("ring", "--planes", "base", "--json")
    found = json.loads(result.stdout)
    assert found["out"] == "ring-heatmap.png"
    (panel,) = found["panels"]
    assert set(panel) == {"prior", "model", "layer", "plane", "rows", "cols", "verdict", "why"}
    assert (panel["prior"], panel["model"], panel["plane"], panel["rows"], panel["verdict"]) == ("ring", "org/ring", "base", 6, "flat")


def test_a_plane_without_a_pattern_is_drawn_without_a_verdict(folder):
    assert run("ring", "--planes", "newline").stdout == "ring-heatmap.png\n"


def test_nothing_is_overwritten_without_force(folder):
    assert run("ring").exit_code == 0
    result = run("ring")
    assert isinstance(result.exception, BiaskitError)
    assert result.exception.message == "ring-heatmap.png exists"
    assert run("ring", "--force").exit_code == 0


@pytest.mark.parametrize("value", ["1-2", " 1 - 2", "2-2,1"])
def test_layers_may_be_a_range(folder, value):
    save(folder / "deep.safetensors", {"image": np.arange(1, 145).reshape(12, 12)}, (0, 1, 2, 3), "org/deep")
    result = run("deep.safetensors", "--layers", value, "--json")
    assert {panel["layer"] for panel in json.loads(result.stdout)["panels"]} == {1, 2}


@pytest.mark.parametrize("value", ["1,x", "", "1,", "-1", "²"])
def test_wrong_layers_are_a_usage_error(folder, value):
    result = run("ring", f"--layers={value}")
    assert result.exit_code == 2
    assert "--layers" in result.stderr


def test_mistakes_stop_before_a_figure_is_written(folder):
    for arguments, message in [
        (["ring", "--layers", "3"], "no layer 3"),
        (["ring", "--planes", "image"], "no plane 'image'"),
        (["ring", "--out", "a.bmp"], r"cannot write a \.bmp figure"),
        (["ring", "--labels", "a,b"], "2 labels for 1 priors"),
        (["rong"], "rong"),
    ]:
        result = run(*arguments)
        assert isinstance(result.exception, BiaskitError | PriorError), arguments
        with pytest.raises(BiaskitError, match=message):
            raise result.exception
    assert sorted(path.name for path in folder.iterdir()) == ["bottom.safetensors", "priors"]


def test_the_module_loads_nothing_heavy():
    code = "import sys, biaskit.cli.heatmap; print([m for m in ('numpy', 'matplotlib', 'seaborn', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"
