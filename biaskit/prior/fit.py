"""Three ways to resample a prior to a sample's visual tokens: on the true grid, or flattened, for comparison with other implementations."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from biaskit.errors import BiaskitError
from biaskit.grid import Layout
from biaskit.prior.resample import resample
from biaskit.prior.value import Prior

PriorLayout = Literal["grid2d", "flat1d", "repeat"]


def fit_prior(prior: Prior, layout: Layout, layer: int, how: PriorLayout = "grid2d") -> NDArray[np.float64]:
    """Return a_bias for every visual token of one sample: [N] float64, in attention × N.

    Args:
        prior: the calibrated maps. layout: the sample's tokens. layer: 0-based decoder layer whose attention was read.
        how: `grid2d`: every plane bilinearly, separately. The other two first concatenate the planes' maps to one vector in raster order;
            `flat1d` interpolates it linearly to all tokens of the prompt, `repeat` repeats it and cuts it off. Both ignore the positions
            of tokens unless the grid is the prior's.

    Raises:
        PriorError: no such layer, or the sample has a plane that the prior lacks.
        BiaskitError: `how` is unknown.

    >>> from biaskit.grid import Plane, raster
    >>> from biaskit.prior.planes import PlaneStats
    >>> mean = np.array([[[1, 3]]], dtype=np.float32)
    >>> prior = Prior({"image": PlaneStats(mean)}, (1,), np.ones(1, dtype=np.float32), {})
    >>> tokens = raster(Plane("image", 1, 4))
    >>> layout = Layout(np.arange(4), tokens.planes, tokens.plane, tokens.row, tokens.col)
    >>> fit_prior(prior, layout, 1), fit_prior(prior, layout, 1, "repeat")
    (array([1. , 1.5, 2.5, 3. ]), array([1., 3., 1., 3.]))
    """
    if how == "grid2d" or not layout.planes:
        return prior.for_layout(layout, layer)
    names = dict.fromkeys(plane.name for plane in layout.planes)
    flat = np.concatenate([prior.map(name, layer).ravel() for name in names])
    if how == "flat1d":
        return layout.of_whole(resample(flat[None], 1, layout.whole)[0])
    if how == "repeat":
        return layout.of_whole(np.resize(flat, layout.whole))
    raise BiaskitError(f"prior_layout is {how!r}", "choose grid2d, flat1d or repeat")
