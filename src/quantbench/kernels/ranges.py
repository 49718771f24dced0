"""The kernel of `quantbench.formats.range_search.smallest_error`: one group after another, its values in the cache.

Symbols    v [n]  the values of a group, w [n] their weights      s_k, z_k  the grid of the k-th range (`fit`)
           e [n]  rounding errors in steps of s_k, u = e^2        S_k       s_k^2.4 * sum of w u^1.2

Bounds of S_k, from cheap to exact:
 1. The ends: where the largest or the smallest value exceeds the grid by a, S_k >= w a^2.4.
 2. The triangle inequality: S^(1/2.4) is a norm of the errors, and a grid that is another one stretched by 1 + r
    has each of its points moved by r of it. So ranges close to one far from the best are not the best (`others`).
 3. A polynomial p(u) <= u^1.2 for u <= 1/4, and a tangent for the errors of values beyond the grid, as u^1.2 is convex
    (`below`). For errors that are uniform within a step it is less than S_k by 0.4 %.
 4. S_k itself, up to the errors of float32 (`exact`): with x = u^(-1/5) by Newton's method, u^1.2 = u^2 x^4.

For one range in APART 3. is computed, and 4. for the best of them; for those that 1. and 2. do not exclude, 3.; and 4.
for what is then left. Ranges whose S_k is within the errors of float32 of the smallest are left to the caller.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from quantbench.kernels.jit import compiled
from quantbench.kernels.range_parts import NORM, below, errors, exact, fit, ratios, summary

f4 = numba.float32
SURE = np.float32(2.0**-11)  # of S^(1/2.4): so much more than needed must be shown
APART = 8  # so far apart are the ranges that are looked at first

ROUGH = np.float32(2.0**-22)  # of the largest value: the error of float32 in each rounding error
UNDERFLOW = np.float32(2.0**-32)  # far above errors that have no power of 2.4 in float32
BLURRED = np.float32(0.02)  # where errors of float32 are so much of S^(1/2.4), all ranges are left to the caller


@compiled(f4[::1], f4[::1], f4[::1], f4, f4, f4, f4[::1], numba.int64[::1])
def others(S: Any, scales: Any, zeros: Any, reached: Any, size: Any, length: Any, beyond: Any, chosen: Any) -> Any:
    """Choose the ranges, except one in APART, that these do not exclude by 2. nor their own ends by 1.; how many.

    A grid has a norm of the errors of at least (norm of the other's - r length) / (1 + r), r being the difference of
    both scales relative to its own, length the norm of the values; and y^(1/2.4) >= 1 + 2/2.4 (y - 1) / (y + 1) for
    y >= 1. reached: what S of the best is at most, size^2.4; beyond [k]: the norm of the error at the ends.
    """
    K, one, number = len(S), np.float32(1), 0
    for start in range(0, K, APART):
        later = min(start + APART, (K - 1) // APART * APART)
        y = max(S[start] / reached, one)
        before = size * (np.float32(0.83) * (y - one) / (y + one) - SURE) / (size + length)
        y = max(S[later] / reached, one)
        after = size * (np.float32(0.83) * (y - one) / (y + one) - SURE) / (size + length)
        for k in range(start + 1, min(start + APART, K)):
            out = (abs(scales[start] - scales[k]) <= before * scales[k]) & (zeros[start] == zeros[k])
            out |= (abs(scales[later] - scales[k]) <= after * scales[k]) & (zeros[later] == zeros[k])
            chosen[number] = k
            number += 0 if out | (beyond[k] > size) else 1
    return number


@compiled(
    numba.int64, numba.int64, f4[:, ::1], f4[:, ::1], numba.boolean, f4[::1], f4[::1], f4[::1],
    numba.boolean, f4, f4, f4, f4, f4, numba.int64, f4, numba.int64[::1], numba.uint8[:, ::1],
)  # fmt: skip
def search(
    start: Any,
    end: Any,
    values: Any,
    weights: Any,
    weighted: Any,
    low: Any,
    high: Any,
    factors: Any,
    symmetric: Any,
    twice: Any,
    divisor: Any,
    middle: Any,
    lowest: Any,
    highest: Any,
    dtype: Any,
    least: Any,
    only: Any,
    left: Any,
) -> None:
    """For the groups from start to end: which ranges can be the best, left [m, k]; its index if it is one, else -1.

    values [m, n]; weights [r, n], those of group i being the (i % r)-th; low, high [m]; factors [k]; only [m].
    """
    K, n, one, infinity = len(factors), values.shape[1], np.float32(1), np.float32(np.inf)
    scales, zeros = np.empty(K, np.float32), np.empty(K, np.float32)
    S, x = np.empty(K, np.float32), np.empty(K, np.float32)
    u, r = np.empty(n, np.float32), np.empty(n, np.float32)
    scale_bits, u_bits, r_bits = scales.view(np.int32), u.view(np.int32), r.view(np.int32)
    powers, beyond, known = np.empty(K, np.float32), np.empty(K, np.float32), np.empty(K, np.uint8)
    chosen = np.empty(K, np.int64)
    for k in range(K):
        powers[k] = factors[k] ** NORM
    above = one + np.float32(2.0**-16) + np.float32(n) * np.float32(2.0**-26)
    for i in range(start, end):
        left[i, :], only[i] = 1, -1
        v, w = values[i], weights[i % len(weights)]
        fit(low[i], high[i], factors, symmetric, twice, divisor, middle, dtype, least, scales, scale_bits, zeros)
        smallest, largest, w_end, mass, length = summary(v, w, weighted)
        if not (np.isfinite(scales.sum()) and np.isfinite(length) and mass > 0):
            continue
        unit = scales[0]
        length, push = length / unit, w_end ** (one / NORM) / unit
        ratios(scales, unit, factors, powers, x)
        slack = ROUGH * max(max(-low[i], high[i]), max(-smallest, largest)) / unit * mass ** (one / NORM)
        best, reached, size = infinity, infinity, infinity
        S[:], known[:] = infinity, 0
        for turn in range(3):  # one range in APART, all others that these do not exclude, and what is left of them
            number = 0
            if turn == 0:
                for k in range(0, K, APART):
                    chosen[number] = k
                    number += 1
            elif turn == 1:
                for k in range(K):
                    top, bottom = (highest - zeros[k]) * scales[k], (lowest - zeros[k]) * scales[k]
                    beyond[k] = max(largest - top, bottom - smallest) * push
                number = others(S, scales, zeros, reached, size, length, beyond, chosen)
            if number > 0:
                chosen[0] = below(v, w, weighted, scales, zeros, x, lowest, highest, chosen, number, S)
                number = 1
            if turn == 2:
                for k in range(K):
                    chosen[number] = k
                    number += S[k] <= reached and not known[k]
            for k in chosen[:number]:
                if S[k] <= reached:
                    errors(v, scales[k], zeros[k], lowest, highest, u)
                    S[k] = x[k] * exact(w, weighted, u, u_bits, r, r_bits)
                    known[k] = 1
                    best = min(best, S[k])
                    size = best ** (one / NORM)
                    blur = slack / max(size, np.float32(1e-30))
                    reached = best * above * (one + np.float32(6) * blur)
                    size *= one + np.float32(4) * blur + np.float32(0.25) * SURE
        if not (slack < BLURRED * size and UNDERFLOW / unit * mass < size and best > 0):
            continue
        number = 0
        for k in range(K):
            left[i, k] = known[k] and S[k] <= best * above
            only[i] = k if left[i, k] else only[i]
            number += left[i, k]
        if number != 1:
            only[i] = -1
