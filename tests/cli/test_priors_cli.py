"""`biaskit priors …`: what is printed where, exit codes, JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import biaskit
from biaskit.cli.priors import app
from biaskit.errors import BiaskitError, FileError, PriorError
from biaskit.prior import store
from biaskit.prior.value import PlaneStats, Prior

runner = CliRunner()


def prior(seed: int = 0, rows: int = 6, cols: int = 6, layers: tuple[int, ...] = (1, 4)) -> Prior:
    """A prior whose bottom rows get more attention, with noise over 4 groups of 5 images."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0.2, 1.0, rows)[:, None]
    groups = (ramp + rng.gamma(2, 0.02, (4, len(layers), rows, cols))).astype(np.float32)
    mean = groups.mean(axis=0)
    image = PlaneStats(mean, mean / 4, groups, np.full(4, 5, np.int32), count=20)
    meta = {"model": f"org/model-{seed}", "model_type": "llava", "n_images": "20", "prompt": json.dumps(["Describe it."])}
    return Prior({"image": image}, layers, np.full(len(layers), 0.6, np.float32), meta)


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder and no packaged priors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(store, "packaged", lambda: tmp_path / "packaged")
    return tmp_path


def run(*args: str, code: int = 0) -> Any:
    result = runner.invoke(app, list(args))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def table(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


# --- list ----------------------------------------------------------------------------------------------------------------------------


def test_list_nothing() -> None:
    result = run("list")
    assert result.stdout == ""
    assert "no priors in priors or" in result.stderr
    assert "biaskit calibrate" in result.stderr
    assert json.loads(run("list", "--json").stdout) == []


def test_list_goes_on_after_an_unreadable_file() -> None:
    prior(layers=(0, 1, 2, 5)).save("priors/good.safetensors")
    Path("priors/bad.safetensors").write_bytes(b"")
    result = run("list")
    rows = table(result.stdout)
    assert rows[0] == ["name", "place", "model", "type", "layers", "planes", "images", "file"]
    assert rows[1][:3] == ["bad", "local", "unreadable:"]
    assert rows[2] == ["good", "local", "org/model-0", "llava", "0-2,5", "image", "6x6", "20", "priors/good.safetensors"]
    assert "unreadable: priors/bad.safetensors is empty" in result.stderr
    data = json.loads(run("list", "--json").stdout)
    assert data[0] == {"name": "bad", "place": "local", "path": "priors/bad.safetensors", "error": "priors/bad.safetensors is empty"}
    assert data[1]["name"] == "good"
    assert data[1]["layers"] == [0, 1, 2, 5]
    assert data[1]["visual_mass"] == [0.6] * 4
    assert data[1]["planes"] == {"image": {"rows": 6, "cols": 6, "count": 20, "groups": 4, "heads": 0}}


# --- show ----------------------------------------------------------------------------------------------------------------------------


def test_show() -> None:
    prior().save("priors/a.safetensors")
    out = run("show", "a").stdout
    rows = table(out)
    assert ["model", "org/model-0"] in rows
    assert ["prompt", "Describe", "it."] in rows
    assert "6 rows x 6 cols, 20 images, variance, 4 groups" in out
    metrics = {row[0]: row for row in rows if len(row) > 1}
    assert metrics["metric"] == ["metric", "image", "1", "image", "4"]
    assert len(metrics["bottom_third"]) == 7  # two times value [low, high]
    assert metrics["bottom_third"][2].startswith("[")
    assert "correlation" in out


def test_show_says_the_recency_law_to_three_digits() -> None:
    """Slopes are thousandths: three places after the point would show one digit."""
    law = np.exp(2.345e-3 * np.arange(36) * 575 / 35).reshape(6, 6)
    groups = np.stack([law * (1 + 0.01 * number) for number in range(4)])[:, None].astype(np.float32)
    stats = PlaneStats(groups.mean(0), group_mean=groups, group_count=np.full(4, 5, np.int32), count=20)
    Prior({"image": stats}, (1,), np.ones(1, np.float32), {}).save("priors/law.safetensors")
    text = run("show", "law").stdout
    assert "k of exp(k·i), per token of 576  2.34e-03 [2.34e-03, 2.35e-03]" in text
    assert "variance that exp(k·i) explains  1.000" in text and "recency" in text


def test_show_json_agrees_with_the_report() -> None:
    from biaskit.prior.bias.report import convergence, report

    prior().save("priors/a.safetensors")
    data = json.loads(run("show", "a", "--json").stdout)
    assert data["prior"] == "a"
    assert data["meta"]["model"] == "org/model-0"
    assert data["bias"] == json.loads(json.dumps(report(prior()).to_json()))
    assert data["convergence"] == json.loads(json.dumps(convergence(prior())))


def test_show_one_layer_and_plane() -> None:
    prior().save("priors/a.safetensors")
    data = json.loads(run("show", "a", "--layer", "4", "--plane", "image", "--json").stdout)
    assert data["layers"] == [4]
    assert {row["layer"] for row in data["bias"]["layers"]} == {4}
    with pytest.raises(PriorError, match="no layer 3, only 1, 4"):
        run("show", "a", "--layer", "3")


def test_show_without_groups_or_provenance() -> None:
    full = prior()
    bare = replace(full, planes={"image": PlaneStats(full.planes["image"].mean)}, meta={"kind": "imported"})
    bare.save("a")
    out = run("show", "a").stdout
    assert "images unknown" in out
    assert "unknown, set to 1" in out
    assert "[" not in out
    assert "correlation of the first" not in out


def test_show_foreign_text_cannot_steer_the_terminal() -> None:
    replace(prior(), meta={"note": "\x1b[2J[bold]x[/bold]\x07", "prompt": "not JSON"}).save("a")
    out = run("show", "a").stdout
    assert "\x1b" not in out
    assert r"\x1b[2J[bold]x[/bold]\x07" in out
    assert "not JSON" in out


# --- verify --------------------------------------------------------------------------------------------------------------------------


def test_verify() -> None:
    prior().save("a")
    Path("b").write_bytes(prior().to_bytes()[:-3])
    assert run("verify", "a").stdout == "ok   a\n"
    result = run("verify", "a", "b", "c", code=1)
    lines = result.stdout.splitlines()
    assert lines[0] == "ok   a"
    assert lines[1].startswith("bad  b: is damaged")
    assert lines[2].startswith("bad  c: no prior 'c'")
    assert "hint: " in lines[1]
    data = json.loads(run("verify", "a", "b", "--json", code=1).stdout)
    assert [(row["prior"], row["ok"]) for row in data] == [("a", True), ("b", False)]
    assert "damaged" in data[1]["error"]


def test_verify_model_type() -> None:
    prior().save("a")
    run("verify", "a", "--model-type", "llava")
    result = run("verify", "a", "--model-type", "qwen2_vl", code=1)
    assert "bad  a: this prior is for model type 'llava', not 'qwen2_vl'" in result.stdout


# --- diff ----------------------------------------------------------------------------------------------------------------------------


def test_diff_of_equal_maps() -> None:
    prior().save("a")
    data = json.loads(run("diff", "a", "a", "--json").stdout)
    assert [(m["plane"], m["layer"]) for m in data["maps"]] == [("image", 1), ("image", 4)]
    for m in data["maps"]:
        assert m["pearson"] == pytest.approx(1)
        assert m["spearman"] == pytest.approx(1)
        assert m["top_k"] == 1
        assert 0 < m["top_k_chance"] < 0.3
        assert m["mean_abs_diff"] == 0
        assert m["level_a"] == m["level_b"]
    assert data["meta"] == {}
    assert data["notes"] == []


def test_diff_reports_grids_layers_metadata_and_levels() -> None:
    a, b = prior(0), prior(1, rows=4, layers=(1, 2))
    b = replace(b, planes={**b.planes, "thumbnail": PlaneStats(np.ones((2, 2, 2), np.float32))})
    a.save("a")
    b.save("b")
    data = json.loads(run("diff", "a", "b", "--json").stdout)
    (only,) = data["maps"]
    assert (only["plane"], only["layer"], only["rows"], only["cols"], only["resampled"]) == ("image", 1, 4, 6, True)
    assert only["level_a"] == pytest.approx(a.map("image", 1).mean())
    assert data["meta"] == {"model": ["org/model-0", "org/model-1"]}
    assert data["notes"] == ["only B has plane thumbnail", "only A has layer 4", "only B has layer 2"]
    out = run("diff", "a", "b").stdout
    assert "4x6 (resampled)" in out
    assert ["model", "org/model-0", "org/model-1"] in table(out)
    assert "only A has layer 4" in out


def test_diff_without_anything_in_common() -> None:
    prior(layers=(1,)).save("a")
    prior(layers=(2,)).save("b")
    with pytest.raises(BiaskitError, match="share no layer"):
        run("diff", "a", "b")


# --- import and export ---------------------------------------------------------------------------------------------------------------


def test_import() -> None:
    np.save("FastV.npy", 1 / np.arange(1.0, 13.0))
    args = ("import", "FastV.npy", "--as", "weight", "--model-type", "llava", "--layer", "1", "--grid", "3x4")
    assert run(*args).stdout == "priors/FastV.safetensors\n"
    value = store.load_prior("FastV")
    np.testing.assert_allclose(value.map("image", 1), np.arange(1.0, 13.0).reshape(3, 4) / 6.5, rtol=1e-6)
    with pytest.raises(FileError, match="exists"):
        run(*args)
    data = json.loads(run(*args, "--force", "--json", "--out", "x.safetensors", "--note", "why").stdout)
    assert data["path"] == "x.safetensors"
    assert data["meta"]["kind"] == "imported"
    assert data["meta"]["note"] == "why"


def test_import_several_layers() -> None:
    np.save("maps.npy", np.ones((2, 9)))
    run("import", "maps.npy", "--as", "bias", "--model-type", "llava", "--layers", "1,4")
    assert store.load_prior("maps").layers == (1, 4)


def test_import_of_a_range_of_layers() -> None:
    np.save("maps.npy", np.ones((3, 9)))
    run("import", "maps.npy", "--as", "bias", "--model-type", "llava", "--layers", "1-2,5")
    assert store.load_prior("maps").layers == (1, 2, 5)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--model-type", "llava", "--layer", "1"), "--as"),
        (("--as", "ratio", "--model-type", "llava", "--layer", "1"), "ratio"),
        (("--as", "bias", "--layer", "1"), "--model-type"),
        (("--as", "bias", "--model-type", "llava", "--layer", "one"), "one"),
        (("--as", "bias", "--model-type", "llava", "--layer", "1_0"), "1_0"),
        (("--as", "bias", "--model-type", "llava", "--layer", "-1"), "-1"),
        (("--as", "bias", "--model-type", "llava", "--layer", "1", "--grid", "0x2"), "--grid"),
    ],
)
def test_import_usage(args: tuple[str, ...], message: str) -> None:
    np.save("maps.npy", np.ones(9))
    result = run("import", "maps.npy", *args, code=2)
    assert message in result.stderr
    assert not Path("priors").exists()


def test_an_array_needs_its_layers_and_our_own_exports_do_not() -> None:
    np.save("maps.npy", np.ones(9))
    words = ("--as", "bias", "--model-type", "llava")
    with pytest.raises(PriorError, match="does not say which layers"):
        run("import", "maps.npy", *words)
    prior().save("a.safetensors")
    run("export", "a.safetensors", "a.npz")
    run("import", "a.npz", *words, "--layers", "4", "--out", "b.safetensors")
    assert Prior.load("b.safetensors").layers == (4,)


def test_export() -> None:
    value = prior()
    value.save("a")
    assert run("export", "a", "out.npy", "--layer", "4").stdout == "out.npy\n"
    np.testing.assert_array_equal(np.load("out.npy"), value.planes["image"].mean[1])
    with pytest.raises(FileError, match="exists"):
        run("export", "a", "out.npy")
    run("export", "a", "out.npy", "--force")
    assert np.load("out.npy").shape == (2, 6, 6)
    run("export", "a", "out.json")
    assert json.loads(Path("out.json").read_text())["meta"]["model"] == "org/model-0"


def test_export_says_what_it_leaves_out() -> None:
    value = prior()
    planes = {"base": value.planes["image"], "newline": PlaneStats(np.ones((2, 6, 1), np.float32))}
    replace(value, planes=planes).save("a")
    result = run("export", "a", "out.npy")
    assert "wrote plane base only, of base, newline" in result.stderr
    assert run("export", "a", "all.json").stderr == ""


# --- the module ----------------------------------------------------------------------------------------------------------------------


def python(code: str) -> str:
    """What a fresh interpreter prints."""
    env = os.environ | {"PYTHONPATH": str(Path(biaskit.__file__).parents[1])}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env).stdout


def test_importing_the_commands_is_cheap() -> None:
    heavy = "{'numpy', 'torch', 'transformers', 'matplotlib', 'safetensors', 'huggingface_hub'}"
    assert python(f"import sys, biaskit.cli.priors; print(sorted({heavy} & set(sys.modules)))") == "[]\n"


def test_reading_a_prior_needs_no_torch() -> None:
    prior().save("a")
    code = (
        "import sys; from typer.testing import CliRunner; from biaskit.cli.priors import app; "
        "r = [CliRunner().invoke(app, [*c.split()]).exit_code for c in ('list', 'show a', 'diff a a', 'export a b.json')]; "
        "print(r, sorted({'torch', 'transformers', 'matplotlib'} & set(sys.modules)))"
    )
    assert python(code) == "[0, 0, 0, 0] []\n"


def test_diff_draws_when_asked_to() -> None:
    prior().save("priors/a.safetensors")
    prior(1).save("priors/b.safetensors")
    result = run("diff", "a", "b", "--out", "diff.png", "--json")
    assert Path("diff.png").read_bytes()[:4] == b"\x89PNG"
    assert result.stderr == "diff.png\n"
    assert json.loads(result.stdout)["a"] == "a"
    with pytest.raises(BiaskitError, match=r"diff\.png exists"):
        run("diff", "a", "b", "--out", "diff.png")
