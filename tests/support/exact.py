"""Cosines by the rule of `biaskit.select` on a CPU, for the algorithms of `biaskit.bench.authors`."""

from __future__ import annotations

from biaskit.bench.authors import float64_cosines


def exact_cosines(a, b):
    """Those of float64 rounded to 2⁻²⁴, which makes copies of a token tie."""
    return (float64_cosines(a, b) * 2**24).round() / 2**24
