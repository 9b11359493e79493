"""Benchmarks on small models: the numbers they report are those of the model, and what they compare is the same."""

from __future__ import annotations

import pytest
import torch
import transformers as hf

from biaskit.bench.calibration_speed import Comparison, compare
from biaskit.bench.calibration_speed import table as calibration_table
from biaskit.bench.growth import draw, measure_growth
from biaskit.bench.growth import table as growth_table
from biaskit.bench.prefill import Plan, measure
from biaskit.bench.table import table
from biaskit.bench.workload import cells, dims, n_text, prompts
from biaskit.errors import BiaskitError, ModelError
from biaskit.families.checkpoints.catalog import CHECKPOINTS
from biaskit.families.checkpoints.decoder import decoder
from biaskit.families.checkpoints.random_weights import parts, random_model
from biaskit.families.checkpoints.sizes import SIZES, sizes

PUBLISHED = {
    "llava-1.5": 7.06, "llava-1.5-13b": 13.35, "llava-next": 7.06, "llava-next-13b": 13.35, "llava-onevision": 8.03, "qwen2-vl": 8.29,
    "qwen2.5-vl": 8.29, "qwen2.5-vl-3b": 3.75, "qwen3-vl": 8.77, "internvl2.5": 8.08, "internvl2.5-2b": 2.21, "internvl3": 7.94,
}  # fmt: skip
"""Billions of parameters that the checkpoints' pages state."""


def test_sizes_are_those_of_checkpoints_with_a_name():
    """Not of all: what the papers measure. The others are refused with the names that are known."""
    assert set(SIZES) == set(PUBLISHED) <= set(CHECKPOINTS)
    assert all(SIZES[name].model_type == CHECKPOINTS[name].model_type for name in SIZES)
    assert sizes("Qwen/Qwen3-VL-8B-Instruct") is SIZES["qwen3-vl"]
    for unknown in ("llava-3", "smolvlm"):
        with pytest.raises(ModelError, match=f"sizes of '{unknown}' are not known"):
            sizes(unknown)


@pytest.mark.parametrize("name", SIZES)
def test_full_size_has_the_published_number_of_parameters(name):
    with torch.device("meta"):
        model = hf.AutoModelForImageTextToText.from_config(parts(sizes(name))[0], dtype=torch.bfloat16)
    count = sum(weight.numel() for weight in model.parameters()) / 1e9
    assert count == pytest.approx(PUBLISHED[name], abs=0.006)


@pytest.mark.parametrize("name", ["llava-next", "llava-onevision", "qwen2-vl", "qwen2.5-vl-3b", "qwen3-vl", "internvl2.5", "internvl3"])
def test_random_models_of_every_family_are_pruned(name):
    loaded = random_model(name, device="cpu", shrink=(64, 5))
    layer = max(2, 4 if name == "qwen3-vl" else 2)
    found = cells(loaded, ["fastv+prior"], [0.25], layer)
    rows = measure(loaded, found, Plan((1,), (336, 336), 1, 40, 2, 1))
    whole, pruned = rows
    assert pruned["n"] == cells(loaded, ["fastv"], [0.25])[1].pruner.stages()[0].tokens(whole["N"]) and whole["n_text"] == 40
    for row in rows:
        assert row["cache_bytes"] == row["cache_formula_bytes"], row["method"]
        assert set(row["times"]) >= {"prefill_ms", "first_token_ms", "total_ms", "decision_ms"}
    assert pruned["decision_share"] > 0 and whole["decision_share"] == 0


def test_prefill_columns_and_batches():
    loaded = random_model("llava-1.5", device="cpu", shrink=(64, 4))
    rows = measure(loaded, cells(loaded, ["none", "d2pruner", "divprune", "hired"], [0.1]), Plan((1, 2), None, 1, 35, 0, 2))
    assert [(row["method"], row["n"]) for row in rows[:4]] == [("none", 576), ("d2pruner", 58), ("divprune", 58), ("hired", 58)]
    assert [row["batch"] for row in rows] == [1] * 4 + [2] * 4
    assert [row["tower_reading_flops"] for row in rows[:4]] == [0, 0, 0, 2 * 577 * 64], "two rows of a tower of 64 channels"
    assert len({row["tower_flops"] for row in rows}) == 1
    assert rows[1]["layers"] == [2] and rows[2]["layers"] == [0]
    assert rows[2]["mean_tokens"] == 58 and rows[1]["mean_tokens"] == (2 * 576 + 2 * 58) / 4
    size = dims(loaded)
    assert rows[0]["flops"]["fastv"] == 4 * (4 * 611 * 64**2 + 2 * 611**2 * 64 + 2 * 611 * 64 * size.inner)
    assert rows[0]["speedup"]["prefill"] == 1 and rows[2]["peak_bytes"] >= 0
    assert table(rows).count("\n") == 9


def test_a_schedule_that_is_not_given_is_even():
    loaded = random_model("llava-1.5", device="cpu", shrink=(64, 4))
    found = cells(loaded, ["fitprune"], [0.5])
    assert [cell.name for cell in found] == ["none", "fitprune"] and found[1].visual(576) == [(0, 576), (1, 480), (2, 384), (3, 288)]
    whole, pruned = measure(loaded, found, Plan((1,), None, 1, 35, 0, 1))
    assert pruned["n"] == 288 and pruned["cache_bytes"] == pruned["cache_formula_bytes"] < whole["cache_bytes"]


def test_prompts_have_the_wanted_size():
    loaded = random_model("llava-1.5", device="cpu", shrink=(64, 1))
    made = prompts(loaded, 2, images=3, text_tokens=50)
    assert [len(layout) for layout in made.layouts] == [1728, 1728] and n_text(made) == 50
    with pytest.raises(BiaskitError, match="3 prompt tokens"):
        prompts(loaded, 1, text_tokens=3)


@pytest.mark.parametrize("names", [["fastv", "divprune+prior"], ["d2pruner@preset=nonsense"], ["d2pruner:localization"], ["slowv"]])
def test_cells_refuse_what_cannot_be(names):
    loaded = random_model("llava-1.5", device="cpu", shrink=(64, 4))
    with pytest.raises(BiaskitError):
        cells(loaded, names, [0.1])


def test_calibration_is_the_same_as_the_eager_reference():
    loaded = random_model("llava-1.5", device="cpu", shrink=(64, 3))
    before = decoder(loaded.model).config._attn_implementation
    found = compare(loaded, Comparison(5, 3, "0-1", 2, 1, 0))
    assert found["difference"] < 1e-4 and decoder(loaded.model).config._attn_implementation == before
    assert [row["images"] for row in found["rows"]] == [5, 3, 3] and found["rows"][1]["speedup"] == 1
    assert "Layers 0, 1 of 3" in calibration_table(found)


def test_growth_counts_tokens_and_draws(tmp_path):
    loaded = random_model("llava-1.5", device="cpu", shrink=(64, 3))
    found = measure_growth(loaded, ["none", "fastv"], 0.1, images=[1, 2], batch_sizes=[1, 2], repeats=1)
    assert [point["N"] for point in found["points"][::2]] == [576, 1152, 576, 576]
    assert found["exponents"]["N"]["none"]["cache_mb"] == pytest.approx(1, abs=0.1)
    assert found["exponents"]["batch"]["fastv"]["gflops"] == pytest.approx(1)
    draw(found, tmp_path / "growth.png", "here")
    assert (tmp_path / "growth.png").stat().st_size > 10_000 and "exponent in N" in growth_table(found)
