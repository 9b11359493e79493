"""`biaskit prune` and `biaskit pruners`, as a user runs them; the overlay's geometry."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from command import biaskit
from PIL import Image

from biaskit.errors import BiaskitError
from biaskit.families.checkpoints.tiny import save_tiny
from biaskit.figures.overlay import Kept, overlay
from biaskit.grid import Layout, Plane, Tokens, raster
from biaskit.images.generated import GeneratedSource
from biaskit.pruners import pruners


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A directory with a checkpoint, its prior and a picture."""
    root = tmp_path_factory.mktemp("prune")
    save_tiny("llava-1.5", root / "tiny")
    GeneratedSource(1, 0).load(0).save(root / "picture.png")
    done = biaskit("calibrate", "--model", "./tiny", "--data", "generated", "-n", "4", cwd=root)
    assert done.returncode == 0, done.stderr
    return root


def test_answers_accounting_and_overlay(place):
    words = ["--model", "./tiny", "--image", "picture.png", "--prior", "tiny.safetensors", "--max-new-tokens", "3"]
    done = biaskit("prune", *words, "--compare", "fastv, fastv+prior,divprune", "--overlay", "kept.png", "--json", cwd=place)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    rows = {row["method"]: row for row in found["runs"]}
    assert list(rows) == ["none", "D2Pruner", "FastV", "FastV, debiased", "DivPrune"]
    assert all(row["N"] == 576 and row["n"] == (576 if name == "none" else 58) for name, row in rows.items())
    assert rows["FastV"]["mean_tokens"] == pytest.approx((2 * 576 + 4 * 58) / 6)
    assert rows["DivPrune"]["mean_tokens"] == 58
    assert rows["DivPrune"]["cache_bytes"] < rows["FastV"]["cache_bytes"] < rows["none"]["cache_bytes"]
    assert rows["FastV"]["kept"] != rows["FastV, debiased"]["kept"]
    assert Image.open(place / "kept.png").width > 1000
    again = biaskit("prune", *words, "--overlay", "kept.png", cwd=place)
    assert again.returncode == 1 and "kept.png exists" in again.stderr


def test_compare_all_runs_what_works_and_names_the_rest(place):
    words = ["prune", "--model", "demo", "--image", "picture.png", "--pruner", "fastv", "--retention", "0.25", "--max-new-tokens", "1"]
    done = biaskit(*words, "--compare", "all,pyramiddrop@k=2@every=2", "--json", cwd=place)
    assert done.returncode == 0, done.stderr
    ran = [row["name"].partition("@")[0] for row in json.loads(done.stdout)["runs"][1:]]
    left = re.findall(r"left out: ([^:]+): ", done.stderr)
    assert sorted([*ran, *left]) == pruners.names(), "each method once: run, or named with the reason"
    assert left == ["d2pruner", "fitprune", "sparsevlm", "visionselector", "hiprune"]
    assert "d2pruner needs a prior" in done.stderr and "the vision tower has blocks 0 … 3" in done.stderr


def test_table_and_parameters(place):
    words = ["prune", "--model", "./tiny", "--image", "picture.png", "--prior", "tiny.safetensors", "--max-new-tokens", "2"]
    done = biaskit(
        *words,
        "--preset",
        "localization",
        "--set",
        "pivot_mode=mis",
        "--set",
        "theta=0.9",
        "--budget",
        "64",
        "--compare",
        "fastv",
        cwd=place,
    )
    assert done.returncode == 0, done.stderr
    table = [line.split() for line in done.stdout.splitlines()]
    assert table[0][:4] == ["method", "K", "N", "n"]
    assert [row[:4] for row in table[1:4]] == [
        ["none", "–", "576", "576"],
        ["d2pruner@pivot_mode=mis@theta=0.9+prior", "5", "576", "64"],  # the preset's K, and that of what it is compared with
        ["fastv", "5", "576", "64"],
    ]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--pruner", "fastw"], 1, "did you mean fastv"),
        (["--pruner", "fastv", "--set", "stength=0.5"], 1, "strength"),
        (["--pruner", "fastv", "--set", "strength"], 2, "NAME=VALUE"),
        (["--pruner", "fastv", "-r", "1.5"], 1, "retention is 1.5"),
        (["--pruner", "fastv", "--set", "strength=high"], 1, "strength is 'high'"),
        (["--pruner", "fastv", "--k", "2", "--set", "k=one"], 1, "layer is 'one'"),
        (["--pruner", "fastv", "--prior", "tiny.safetensors", "--compare", "divprune+prior"], 1, "DivPrune does not debias attention"),
        (["--pruner", "fastv", "-r", "0.5", "--budget", "3"], 2, "not both"),
        (["--pruner", "fastv", "--k", "9"], 1, "9"),
        (["--pruner", "d2pruner"], 1, "D2Pruner needs a prior|d2pruner needs a prior"),
        (["--pruner", "fastv", "--compare", "fastv+prior"], 1, "there is no prior 'prior'.*give it: --prior FILE"),
        (["--pruner", "fastv", "--image", "nowhere.png"], 1, "cannot read nowhere.png"),
        (["--pruner", "fastv", "--image", "priors/tiny.safetensors"], 1, "not an image"),
        (["--pruner", "fastv", "--overlay", "kept.gif"], 1, "cannot write a .gif figure"),
    ],
)
def test_wrong_input(place, words, code, message):
    import re

    image = [] if "--image" in words else ["--image", "picture.png"]
    done = biaskit("prune", "--model", "./tiny", *image, *words, cwd=place)
    assert done.returncode == code, done.stderr
    assert re.search(message, " ".join(done.stderr.replace("│", " ").split()))
    assert "Traceback" not in done.stderr


def test_prior_of_another_model_is_refused(place):
    save_tiny("qwen2.5-vl", place / "qwen")
    words = ["--model", "./qwen", "--image", "picture.png", "--prior", "tiny.safetensors"]
    done = biaskit("prune", *words, cwd=place)
    assert done.returncode == 1 and "llava" in done.stderr and "hint:" in done.stderr


def test_pruners_are_mounted():
    assert "d2pruner" in biaskit("pruners", "list").stdout
    assert json.loads(biaskit("pruners", "show", "fastv", "--json").stdout)["arxiv"] == "2403.06764"


def picture(cols, rows):
    return Image.fromarray(np.full((rows, cols, 3), 255, dtype=np.uint8))


def layout_of(tokens: Tokens) -> Layout:
    return Layout(np.arange(len(tokens)), tokens.planes, tokens.plane, tokens.row, tokens.col)


def drawn(figure):
    """The figure as pixels, [rows, cols, 3]."""
    figure.set_dpi(100)
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


@pytest.mark.parametrize("box", [(0.0, 0.0, 1.0, 1.0), (0.25, 0.0, 0.75, 1.0)])
def test_a_kept_token_is_bright_where_its_patch_lies_and_nothing_else_is(box):
    layout = layout_of(raster(Plane("image", 4, 4, box)))
    token = 2 * 4 + 1  # row 2, col 1
    figure = overlay(picture(400, 200), layout, [Kept("one", np.array([token]))])
    axes = figure.axes[1]
    pixels = drawn(figure)
    left, top, right, bottom = box
    for row in range(4):
        for col in range(4):
            x = (left + (col + 0.5) / 4 * (right - left)) * 400
            y = (top + (row + 0.5) / 4 * (bottom - top)) * 200
            at = axes.transData.transform((x, y))
            value = pixels[pixels.shape[0] - 1 - int(at[1]), int(at[0])].mean()
            assert (value > 240) == (row * 4 + col == token), (row, col, value)


def test_an_image_without_known_places_is_refused():
    layout = layout_of(raster(Plane("image", 2, 2, None)))
    with pytest.raises(BiaskitError, match="no plane with a known place"):
        overlay(picture(40, 40), layout, [Kept("x", np.array([0]))])
    with pytest.raises(BiaskitError, match="image 1 has no plane"):
        overlay(picture(40, 40), layout_of(raster(Plane("image", 2, 2))), [Kept("x", np.array([0]))], number=1)
