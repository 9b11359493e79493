"""Analysis of the selections of a validation that ran with `--analyse`: measures per cell, Pareto plot, overlap between methods."""

from __future__ import annotations

from biaskit.validation.selections.figures import overlap_matrix, pareto
from biaskit.validation.selections.read import Point, Selections, read_selections

__all__ = ["Point", "Selections", "overlap_matrix", "pareto", "read_selections"]
