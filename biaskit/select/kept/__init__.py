"""Measures of a kept set: importance, diversity, spacing, coverage of a box, and overlap of two sets.

Public, on plain tensors, for any code base: no model, no engine. `kept` is always [n] whole numbers, indices into N visual tokens.

    importance_retention(attention, kept)                 # IDPruner, definition 2
    hopkins(features, kept).value                         # IDPruner, definition 3; .reference names the reference set
    spacing(cells(layout), kept)                          # mean distance to the nearest kept neighbour, in cells
    coverage(box_weights(layout, (0.2, 0.1, 0.5, 0.4)), kept)
    jaccard(kept, other), overlap_coefficient(kept, other)
"""

from __future__ import annotations

from biaskit.select.kept.features import REFERENCES, Hopkins, Reference, hopkins, importance_retention, nearest_cosine_distance
from biaskit.select.kept.overlap import jaccard, jaccard_by_chance, overlap_coefficient
from biaskit.select.kept.places import box_tokens, box_weights, coverage, spacing

__all__ = [
    "REFERENCES",
    "Hopkins",
    "Reference",
    "box_tokens",
    "box_weights",
    "coverage",
    "hopkins",
    "importance_retention",
    "jaccard",
    "jaccard_by_chance",
    "nearest_cosine_distance",
    "overlap_coefficient",
    "spacing",
]
