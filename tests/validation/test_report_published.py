"""The papers' tables: whole, consistent with themselves, and marked where they are not."""

from __future__ import annotations

import pytest

from biaskit.validation.report.published import benchmark, model_key, published, recomputed_average, rows, same_method, sources, table_title


def row(table, model, retention, method):
    (found,) = [r for r in rows() if (r.table, r.model, r.method) == (table, model, method) and abs(r.retention - retention) < 0.002]
    return found


def test_every_table_is_there_and_whole():
    assert {r.table for r in rows()} == set(sources()["tables"])
    assert {r.model for r in rows()} == set(sources()["models"])
    assert len({(r.table, r.model, r.retention, r.method) for r in rows()}) == len(rows())
    sizes = {table: sum(r.table == table for r in rows()) for table in sources()["tables"]}
    assert sizes == {
        "d2pruner-1": 41, "d2pruner-2-qwen2.5-vl": 9, "d2pruner-2-internvl2.5": 9, "d2pruner-3": 26, "d2pruner-4": 3,
        "idpruner-1": 19, "idpruner-2": 5, "idpruner-3": 3, "idpruner-4": 3,
    }  # fmt: skip


@pytest.mark.parametrize("r", [r for r in rows() if r.average is not None], ids=lambda r: f"{r.table}/{r.model}/{r.retention}/{r.method}")
def test_printed_averages_recompute_or_say_that_they_do_not(r):
    """One mistyped cell moves an average by more than this: the unmarked rows are right, or wrong in a way that keeps the sum."""
    average = recomputed_average(r)
    if average is None:
        assert r.note  # second hand: no unpruned row at hand
    elif abs(average - r.average) > 0.1:
        assert f"prints an average of {r.average:g}" in r.note.replace(".0;", ";") and f"its cells give {average:.2f}" in r.note
    else:
        assert "prints an average" not in r.note


@pytest.mark.parametrize(
    ("method", "recomputed", "printed"),
    [
        ("DART", 95.00, 93.9), ("HiRED", 93.32, 91.8), ("GlobalCom2", 92.24, 90.3), ("FasterVLM", 91.17, 89.8), ("PDrop", 90.90, 86.8),
        ("SparseVLM", 89.70, 85.9), ("FastV", 88.03, 86.4), ("LLaVA-PruMerge", 85.61, 79.9), ("D2Pruner", 95.45, 95.5),
    ],
)  # fmt: skip
def test_llava_next_averages_as_others_recomputed_them(method, recomputed, printed):
    found = row("d2pruner-1", "llava-next-7b", 320 / 2880, method)
    assert found.average == printed
    assert recomputed_average(found) == pytest.approx(recomputed, abs=0.006)


def test_numbers_that_the_papers_texts_repeat():
    """Their running text says some of the cells and averages again."""
    assert [row("d2pruner-1", "llava-1.5-7b", k / 576, "D2Pruner").average for k in (192, 128, 64)] == [99.9, 99.2, 97.3]
    assert [row("d2pruner-2-qwen2.5-vl", "qwen2.5-vl-7b", 0.1, m).average for m in ("D2Pruner", "DART", "FastV", "DivPrune")] == [
        81.69, 64.89, 67.10, 74.01,
    ]  # fmt: skip
    assert row("d2pruner-2-internvl2.5", "internvl2.5-8b", 0.25, "D2Pruner").average == 99.19
    localisation = {m: row("d2pruner-3", "internvl2.5-8b", 0.1, m).average for m in ("D2Pruner", "DART", "FastV", "DivPrune")}
    assert localisation["D2Pruner"] - localisation["DART"] == pytest.approx(63.53)
    assert localisation["D2Pruner"] - localisation["FastV"] == pytest.approx(51.2, abs=0.03)
    llava = row("d2pruner-3", "llava-1.5-7b", 0.4, "D2Pruner").average
    gaps = [llava - row("d2pruner-3", "llava-1.5-7b", 0.4, m).average for m in ("FastV", "DivPrune", "DART")]
    assert (round(min(gaps), 2), round(max(gaps), 2)) == (15.13, 67.07)
    assert [row("idpruner-1", "qwen2.5-vl-7b", r, "IDPruner").average for r in (0.25, 0.1)] == [95.18, 86.47]
    unpruned = row("d2pruner-3", "internvl2.5-8b", 1, "none")
    assert sum(unpruned.values.values()) / 8 == pytest.approx(87.60, abs=0.005)


def test_efficiency_table_agrees_with_its_own_ratios():
    whole, third, ninth = (row("d2pruner-4", "llava-next-7b", r, m) for r, m in ((1, "none"), (0.334, "D2Pruner"), (0.112, "D2Pruner")))
    for pruned, ratios in ((third, (2.93, 2.24, 2.82, 2.87)), (ninth, (5.09, 3.10, 6.10, 7.63))):
        for name, ratio in zip(("prefill ms", "total ms", "TFLOPs", "KV cache MB"), ratios, strict=True):
            assert whole.values[name] / pruned.values[name] == pytest.approx(ratio, abs=0.07)


def test_names_lead_to_the_tables():
    assert model_key("llava-hf/llava-1.5-7b-hf") == model_key("llava-1.5") == model_key("llava-1.5-7b") == "llava-1.5-7b"
    assert model_key("demo") is None
    assert benchmark("refcoco") == benchmark("refcoco:val") == benchmark("refcoco:coordinates=square") == "RefCOCO val"
    assert benchmark("refcoco+:testA") == "RefCOCO+ testA"
    assert benchmark("refcocog:test:box=xywh") == "RefCOCOg test"
    assert benchmark("refcocog:val:split_by=google") is None
    assert benchmark("refcoco:train") is None
    assert benchmark("pope") == benchmark("pope:random") == "POPE"
    assert benchmark("textvqa") == "TextVQA" and benchmark("scenes-where") is None
    assert same_method("d2pruner+prior", "D2Pruner") and same_method("fastv", "FastV") and same_method("none", "none")
    assert not same_method("fastv+prior", "FastV") and not same_method("d2pruner@alpha=0.5+prior", "D2Pruner")
    assert table_title("d2pruner-3") == "D2Pruner, Table 3"


def test_choosing_by_model_and_task():
    found = published("llava-1.5", "refcoco:testB")
    assert {r.table for r in found} == {"d2pruner-3"} and len(found) == 13
    assert found[0].values["RefCOCO testB"] == 59.88
    assert {r.table for r in published(task="MME")} == {"d2pruner-1", "d2pruner-2-qwen2.5-vl", "d2pruner-2-internvl2.5", "idpruner-1"}
    assert published("gpt-7") == []
