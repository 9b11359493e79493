"""The selections on a CPU: exact results at the cost of approximate products. Other modules import only the names below.

Every selection here depends on comparisons of cosines: which token is farthest from the chosen ones, whether two are linked, which is least
similar. The result is that of float64 cosines, but computing all N² of them is slow. So:

- **Approximate cosines.** Blocks of rows are multiplied in float32, or in bfloat16 if the processor is faster at it (AMX, AVX512-BF16) and
  its error is small compared with the spread of the cosines (`cosines.greedy_dtype`).
- **Error bound.** Every approximate cosine comes with a bound on its distance to the exact one, valid for any order of summation and for
  the measured rounding of the rows (`cosines.Product.errors`). A comparison is decided if the bounds do not overlap.
- **Undecided pairs** are computed in float64, one by one, or in blocks if there are many, as in a blank image. Exact cosines are rounded to
  2⁻²⁴, so that copies of a token tie for any order of summation, and then the lower index wins.

Further savings: MMR and max–min are greedy and compute rows of chosen tokens only (`greedy`); max–min's first token is found without all
pairs (`farthest`); D2Pruner needs the range of all cosines (`extremes`), from one triangle of the matrix, block by block, and then only the
edges of tokens that its loop reaches (`d2`); DART compares with a few pivots (`greedy.least_similar`).
"""

from __future__ import annotations

from biaskit.select.cpu.d2 import d2_on_cpu
from biaskit.select.cpu.greedy import lazy_greedy, least_similar

__all__ = ["d2_on_cpu", "lazy_greedy", "least_similar"]
