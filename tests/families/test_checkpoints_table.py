"""docs/checkpoints.md is what its program writes from the measurements, catalogue and families; `make checkpoints` measures anew."""

from __future__ import annotations

import json

from checkpoints import DWARFS
from checkpoints_table import MEASURED, PAGE, page, seen_files

from biaskit.families.checkpoints.catalog import CHECKPOINTS


def test_the_page_is_current(real_checkpoints):
    measured = json.loads(MEASURED.read_text(encoding="utf-8"))
    assert list(measured) == list(DWARFS)
    text = PAGE.read_text(encoding="utf-8")
    assert text == page(measured, seen_files(real_checkpoints)), "run `python tests/support/checkpoints_table.py`, or `make checkpoints`"
    assert all(known.hub_id in text for known in CHECKPOINTS.values()), "what was never run is listed, too"


def test_what_was_measured_holds():
    """Layouts within a tenth of a cell, rows within 1e-6, logits no further from the slow reference than float32 is."""
    for name, found in json.loads(MEASURED.read_text(encoding="utf-8")).items():
        assert found["prompt"] and found["cells"] < 0.1 and found["spots"] >= 12 and found["row"] < 1e-6, name
        assert max(found["exact"]) < 5 * found["unpruned"] < 1e-4, name
