from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from biaskit.cli.heatmap import heatmap
from biaskit.engine.attention import attention_rows
from biaskit.errors import BiaskitError, PriorError
from biaskit.families.checkpoints.load import load_model
from biaskit.images.generated import GeneratedSource
from biaskit.prior.value import PlaneStats, Prior, flat_prior

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


def test_profiles_and_heads_of_a_prior(folder):
    shown = run("ring", "--show", "profiles", "--plane", "base", "--cmap", "viridis")
    assert shown.stdout == "ring-profiles.png\n" and Image.open("ring-profiles.png").width > 300
    mean = np.random.default_rng(0).gamma(9, 0.1, (2, 6, 6)).astype(np.float32)
    heads = np.stack([mean * level for level in (0.5, 1.5)], axis=1)
    Prior({"image": PlaneStats(mean, head_mean=heads)}, (1, 4), np.full(2, 0.3, np.float32), {"model": "org/heads"}).save(
        "heads.safetensors"
    )
    shown = run("heads.safetensors", "--show", "heads", "--layers", "4", "--scale", "panel", "--out", "h.svg", "--json")
    assert json.loads(shown.stdout) == {"out": "h.svg", "show": "heads"}
    assert "<svg" in (folder / "h.svg").read_text()
    with pytest.raises(BiaskitError, match="heads shows one layer, and 2 are asked for"):
        raise run("heads.safetensors", "--show", "heads").exception
    with pytest.raises(PriorError, match="has no maps of heads"):
        raise run("ring", "--show", "heads", "--layers", "1").exception


def test_what_debiasing_does_to_one_picture(folder, checkpoint, monkeypatch):
    """The attention that is drawn is the model's own, at the visual tokens, and the last panel is it over the prior."""
    from biaskit.figures import more_maps

    name = str(checkpoint("llava-1.5"))
    loaded = load_model(name)
    picture = GeneratedSource(1, 0).load(0)
    picture.save("photo.png")
    prepared = loaded.family.prepare(loaded.processor, loaded.model.config, [[picture]], ["Where?"])
    (layout,) = prepared.layouts
    sizes = {plane.name: (plane.rows, plane.cols) for plane in layout.planes}
    meta = {"model": "m", "model_type": loaded.model.config.model_type, "n_images": "2"}
    flat_prior(sizes, (0, 1), meta).save("mine.safetensors")
    seen = {}
    draw = more_maps.triple
    monkeypatch.setattr(more_maps, "triple", lambda *a, **k: seen.update(row=a[2], bias=a[3], title=k["title"]) or draw(*a, **k))
    done = run("mine.safetensors", "--show", "debiased", "--layers", "1", "-m", name, "-i", "photo.png", "--prompt", "Where?")
    assert done.exit_code == 0, done.output
    wanted = attention_rows(loaded.model, prepared.inputs, [1])[0, 0][layout.positions]
    assert seen["row"] == pytest.approx(wanted.numpy(), rel=1e-5) and (seen["bias"] == 1).all()
    assert "Where?" in seen["title"] and "layer 1 (K = 2)" in seen["title"]
    assert Image.open("mine-debiased.png").width > 500


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (("ring", "ring", "--show", "heads"), "PRIOR"),
        (("ring", "--show", "heads", "--planes", "base,canvas"), "--planes"),
        (("ring", "--show", "debiased", "--planes", "base"), "--planes"),
        (("ring", "--show", "profiles", "--labels", "a"), "--labels"),
        (("ring", "--show", "profiles", "--scale", "panel"), "--scale"),
        (("ring", "--show", "debiased", "-m", "demo"), "--show"),
        (("ring", "--show", "tables"), "--show"),
    ],
)
def test_a_view_refuses_what_it_does_not_show(folder, words, option):
    done = run(*words)
    assert done.exit_code == 2 and option in done.stderr


def test_the_module_loads_nothing_heavy():
    code = "import sys, biaskit.cli.heatmap; print([m for m in ('numpy', 'matplotlib', 'seaborn', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"
