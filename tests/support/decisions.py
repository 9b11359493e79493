"""When a selection by cosines is too close to call, and what tests try."""

from __future__ import annotations

import numpy as np

CLEAR = 2e-5  # decisions closer than this may fall either way in float32
FRACTIONS = [0.0, 0.25, 0.5, 0.75, 0.8, 0.9, 1.0]


def is_exact(features: np.ndarray) -> bool:
    """Tell whether the cosines have no rounding, so that nothing is too close to call."""
    return features.shape[1] == 4 and bool(np.isin(np.abs(features), [0, 0.125, 0.25, 0.5, 1, 4, 8]).all())
