"""The selection mathematics of visual-token pruning on plain tensors: public, for any code base, without transformers or our engine.

Three separate kinds of function, free to combine: a score (`relative_attention`, `feature_norm`, `selector_score`, …), geometry (`cells`,
`neighbours`), and a selection (`top_k`, `d2_select`, `mmr_select`, `max_min_select`, `dart_select`, `random_select`, `uniform_select`, …).

Everywhere: N visual tokens of one sample, n of them kept. Tensors may have any float dtype and device; features in half precision are
multiplied in it, everything else is float32. Selections return [n] int64, ascending by default, so that the result can index a sequence
directly; `order="choice"` gives the order in which the method picked. A tie goes to the lower index; autocast is off inside.

Ties: on a CPU every comparison is decided as by float64 cosines rounded to 2⁻²⁴ ≈ 6e-8, the resolution of float32 features. So copies of
a token tie, and other tokens are ordered as in unrounded float64 unless they are closer than that. On a GPU cosines are float32, rounded to
2⁻¹⁸ ≈ 4e-6: closer values tie, and the result may differ from the CPU's. torch's settings for TF32 change neither.

Functions that end in `_many` take a batch, [B, N, …]; on a GPU that is a constant number of kernel launches for all samples and one
host-device synchronisation. Their results are on the CPU.

    a_rel = relative_attention(attention, prior)                                  # [N], [N] → [N]
    keep = d2_select(a_rel, hidden, cells((24, 24)), 64, alpha=0.5).indices       # [64] of 576
"""

from __future__ import annotations

from biaskit.select.cells import cells, neighbours
from biaskit.select.coverage import scope_select
from biaskit.select.d2 import d2_select
from biaskit.select.debiasing import debias, positive_share
from biaskit.select.deduplicated import vispruner_select
from biaskit.select.dpp import dpp_select, text_relevance
from biaskit.select.fitprune import (
    fitprune_deletions,
    fitprune_deletions_many,
    fitprune_schedule,
    fitprune_select,
    gated_cost,
    smallest_alpha,
)
from biaskit.select.graph import Graph, d2_graph, graph_select
from biaskit.select.greedy import dart_select, max_min_select, mmr_select
from biaskit.select.hierarchical import hiprune_select
from biaskit.select.keep import budget
from biaskit.select.many import d2_select_many, max_min_select_many, mmr_select_many, top_k_many
from biaskit.select.merging import Merge, visionzip_merge
from biaskit.select.prumerge import full_width_attention, outlier_count, prumerge_merge, regular_sample
from biaskit.select.recycling import (
    SPARSEVLM_COUNTS,
    kept_and_recycled,
    rank_deletions,
    rater_scores,
    recycled_count,
    sparsevlm_merge,
    text_raters,
)
from biaskit.select.schedules import layer_counts, pyramid_counts, stage_layers
from biaskit.select.scores import feature_norm, min_max, relative_attention, relative_attention_many, selector_score, soft_top_k
from biaskit.select.simple import largest_remainder, random_select, top_k, uniform_select
from biaskit.select.tiles import canvas_scores, capped_shares, globalcom2_ratios, globalcom2_scores, hired_budgets, tile_regions
from biaskit.select.tome import Matching, bipartite_matching, merging_schedule, tokens_after

__all__ = [
    "SPARSEVLM_COUNTS",
    "Graph",
    "Matching",
    "Merge",
    "bipartite_matching",
    "budget",
    "canvas_scores",
    "capped_shares",
    "cells",
    "d2_graph",
    "d2_select",
    "d2_select_many",
    "dart_select",
    "debias",
    "dpp_select",
    "feature_norm",
    "fitprune_deletions",
    "fitprune_deletions_many",
    "fitprune_schedule",
    "fitprune_select",
    "full_width_attention",
    "gated_cost",
    "globalcom2_ratios",
    "globalcom2_scores",
    "graph_select",
    "hiprune_select",
    "hired_budgets",
    "kept_and_recycled",
    "largest_remainder",
    "layer_counts",
    "max_min_select",
    "max_min_select_many",
    "merging_schedule",
    "min_max",
    "mmr_select",
    "mmr_select_many",
    "neighbours",
    "outlier_count",
    "positive_share",
    "prumerge_merge",
    "pyramid_counts",
    "random_select",
    "rank_deletions",
    "rater_scores",
    "recycled_count",
    "regular_sample",
    "relative_attention",
    "relative_attention_many",
    "scope_select",
    "selector_score",
    "smallest_alpha",
    "soft_top_k",
    "sparsevlm_merge",
    "stage_layers",
    "text_raters",
    "text_relevance",
    "tile_regions",
    "tokens_after",
    "top_k",
    "top_k_many",
    "uniform_select",
    "visionzip_merge",
    "vispruner_select",
]
