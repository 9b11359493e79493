"""The selections on a CPU: exact answers at the price of approximate products. The one door; no other module imports what lies behind it.

Every selection here hangs on comparisons of cosines: which token is farthest from the chosen ones, whether two are linked, which is least
similar. The answer is that of float64 cosines, and computing all N² of them is most of the cost. So:

- **Approximate cosines.** Blocks of rows are multiplied in float32, or in bfloat16 where the processor is faster at it (AMX, AVX512-BF16)
  and the error is small among the cosines (`cosines.greedy_dtype`).
- **Error bound.** Every approximate cosine comes with a bound on its distance to the exact one, proven for any order of summation and for
  the rounding of the rows at hand (`cosines.Product.errors`). A comparison is decided where the bounds do not overlap.
- **Undecided pairs** are computed in float64, one by one, and in blocks where there are many, as in a blank image. Exact cosines are
  rounded to 2⁻²⁴, so that copies of a token tie whatever the order of summation, and then the lower index wins.

What saves products: MMR and max–min are greedy and compute rows of chosen tokens only (`greedy`); max–min's first token is found without
all pairs (`farthest`); D2Pruner needs the range of all cosines (`extremes`), from one triangle of the matrix that is never stored, and then
edges of the tokens its loop arrives at (`d2`); DART compares with a few pivots (`greedy.least_similar`).
"""

from __future__ import annotations

from biaskit.select.cpu.d2 import d2_on_cpu
from biaskit.select.cpu.greedy import lazy_greedy, least_similar

__all__ = ["d2_on_cpu", "lazy_greedy", "least_similar"]
