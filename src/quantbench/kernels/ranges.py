"""The kernel of `quantbench.formats.range_search.smallest_error`: one group after another, its values in the cache.

Symbols    v [n]  the values of a group, w [n] their weights      s_k, z_k  the grid of the k-th range (`fit`)
           e [n]  rounding errors in steps of s_k, u = e^2        S_k       s_k^2.4 * sum of w u^1.2

Three bounds of S_k, each looked at only where the one before does not exclude the range:
 1. The ends: the largest value exceeds the grid by a, the smallest by b: S_k >= w (a^2.4 + b^2.4).
 2. A polynomial p(u) <= u^1.2 for u <= 1/4, and a tangent for the errors of values beyond the grid, as u^1.2 is convex.
    For errors that are uniform within a step it is less than S_k by 0.4 %.
 3. S_k itself, up to the errors of float32: with x = u^(-1/5) by Newton's method, u^1.2 = u^2 x^4.

Ranges whose S_k is within these errors of the smallest are left to the caller to compare.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from quantbench.kernels.jit import compiled

f4, i4 = numba.float32, numba.int32
SUMS = frozenset({"reassoc", "nsz", "contract"})  # sums in any order; bounds have margins for it

HALF, SINGLE = 0, 2  # dtypes of scales; 1 is bfloat16

C0, C1, C2, C3, C4 = (np.float32(c) for c in (-0.000977, 0.45959, 2.4834, -8.0573, 11.8323))
"""p(u) = C0 + C1 u + .. + C4 u^4: of all such polynomials the one with the largest mean over uniform errors."""
SLOPE = np.float32(0.909)  # of u^1.2 at u = 1/4, rounded down
ROOT = np.float32(1.2 * (127 - 0.045) * 2**23)  # the bits of u^(-1/5) are about ROOT - bits of u / 5
ROOT_OF = np.float32(2.4)
SURE = np.float32(2.0**-11)  # of S^(1/2.4): so much more than needed must be shown
APART = 8  # so far apart are the ranges that are looked at first

BELOW, ROUGH = np.float32(1 - 2.0**-12), np.float32(2.0**-22)
"""Bounds are so much less than computed, for errors of float32: of sums; of the largest value, for each error."""
UNDERFLOW = np.float32(2.0**-32)  # far above errors that have no power of 2.4 in float32
BLURRED = np.float32(0.02)  # where errors of float32 are so much of S^(1/2.4), all ranges are left to the caller


@compiled(f4, f4, f4[::1], numba.boolean, f4, f4, f4, numba.int64, f4, f4[::1], i4[::1], f4[::1])
def fit(
    low: Any,
    high: Any,
    factors: Any,
    symmetric: Any,
    twice: Any,
    divisor: Any,
    middle: Any,
    dtype: Any,
    least: Any,
    scales: Any,
    bits: Any,
    zeros: Any,
) -> None:
    """`IntGrid.fit` for the ranges factor * [low, high], to the last bit; bits: a view of scales as int32."""
    for k in range(len(factors)):
        a, b = low * factors[k], high * factors[k]
        scales[k] = (twice * max(-a, b) if symmetric else b - a) / divisor
    if dtype != SINGLE:
        drop = 13 if dtype == HALF else 16
        for k in range(len(factors)):
            if dtype == HALF and scales[k] < np.float32(2.0**-14):  # subnormal
                scales[k] = np.rint(scales[k] * np.float32(2.0**24)) * np.float32(2.0**-24)
            else:
                odd = (bits[k] >> drop) & 1
                bits[k] = ((bits[k] + odd + (1 << (drop - 1)) - 1) >> drop) << drop
            if dtype == HALF and scales[k] > np.float32(65504.0):
                scales[k] = np.inf
    for k in range(len(factors)):
        scales[k] = max(scales[k], least)
        zeros[k] = middle if symmetric else np.rint(min(max(-(low * factors[k]) / scales[k], np.float32(0)), divisor))


@compiled(f4[::1], i4[::1], f4[::1], i4[::1], fastmath=SUMS)
def power(u: Any, u_bits: Any, x: Any, x_bits: Any) -> None:
    """x = u^1.2 up to 3e-6 of it, for u >= 0; u_bits, x_bits: views as int32."""
    for j in range(len(u)):
        x_bits[j] = np.int32(ROOT - np.float32(0.2) * np.float32(u_bits[j]))
    for j in range(len(u)):
        y, r = u[j], x[j]
        for _ in range(3):
            r *= np.float32(1.2) - np.float32(0.2) * y * (r * r) * (r * r) * r
        x[j] = (y * (r * r)) * (y * (r * r))


@compiled(f4[::1], f4[::1], numba.boolean, f4, f4, f4, fastmath=SUMS)
def below(v: Any, w: Any, weighted: Any, step: Any, first: Any, last: Any) -> Any:
    """Bound 2. of S / s^2.4, step being 1 / s; the levels without their zero point go from first to last."""
    total, beyond = np.float32(0), np.float32(0)
    quarter = np.float32(0.25)
    if weighted:
        for j in range(len(v)):
            x = v[j] * step
            e = x - min(max(np.rint(x), first), last)
            u = e * e
            m = min(u, quarter)
            total += w[j] * (C0 + m * (C1 + m * (C2 + m * (C3 + m * C4))))
            beyond += w[j] * (u - m)
        return total + SLOPE * beyond
    for j in range(len(v)):
        x = v[j] * step
        e = x - min(max(np.rint(x), first), last)
        u = e * e
        m = min(u, quarter)
        total += m * (C1 + m * (C2 + m * (C3 + m * C4)))
        beyond += u - m
    return total + SLOPE * beyond + C0 * np.float32(len(v))


@compiled(f4[::1], f4, f4, f4, f4, f4[::1])
def errors(v: Any, scale: Any, zero: Any, lowest: Any, highest: Any, u: Any) -> None:
    """u [n], with e as `IntGrid` has it to the last bit."""
    for j in range(len(v)):
        level = min(max(np.rint(v[j] / scale) + zero, lowest), highest)
        e = ((level - zero) * scale - v[j]) / scale
        u[j] = e * e


@compiled(f4[::1], numba.boolean, f4[::1], i4[::1], f4[::1], i4[::1], fastmath=SUMS)
def exact(w: Any, weighted: Any, u: Any, u_bits: Any, x: Any, x_bits: Any) -> Any:
    """S / s^2.4 for u; x [n] is used up."""
    power(u, u_bits, x, x_bits)
    total = np.float32(0)
    if weighted:
        for j in range(len(u)):
            total += w[j] * x[j]
    else:
        for j in range(len(u)):
            total += x[j]
    return total


@compiled(f4[::1], f4[::1], numba.boolean, fastmath=SUMS | {"nnan"})
def summary(v: Any, w: Any, weighted: Any) -> Any:
    """The smallest and the largest value, the smaller of their weights, all weights, and a bound of the values' norm.

    (sum w |v|^2.4)^(1/2.4) <= (sum w v^2)^(1/3) (sum w v^4)^(1/12), by Hoelder's inequality.
    """
    smallest, largest = v[0], v[0]
    for j in range(len(v)):
        smallest, largest = min(smallest, v[j]), max(largest, v[j])
    size = max(max(-smallest, largest), np.float32(1e-30))
    inverse, squares, fourths = np.float32(1) / size, np.float32(0), np.float32(0)
    if not weighted:
        for j in range(len(v)):
            x = v[j] * inverse
            squares += x * x
            fourths += (x * x) * (x * x)
        norm = size * squares ** np.float32(1 / 3) * fourths ** np.float32(1 / 12)
        return smallest, largest, np.float32(1), np.float32(len(v)), norm
    mass, w_low, w_high = np.float32(0), np.float32(0), np.float32(0)
    for j in range(len(v)):
        x = v[j] * inverse
        squares += w[j] * x * x
        fourths += w[j] * (x * x) * (x * x)
        mass += w[j]
    for j in range(len(v)):
        w_low = w[j] if v[j] == smallest else w_low
        w_high = w[j] if v[j] == largest else w_high
    norm = size * squares ** np.float32(1 / 3) * fourths ** np.float32(1 / 12)
    return smallest, largest, min(w_low, w_high), mass, norm


@compiled(f4[::1], f4, f4[::1], f4[::1], f4[::1])
def ratios(scales: Any, unit: Any, factors: Any, powers: Any, x: Any) -> None:
    """x [k] = (s_k / unit)^2.4, given factors^2.4: they differ by the rounding of s_k, or where s_k is the smallest."""
    inverse, most = np.float32(1) / unit, np.float32(0)
    for k in range(len(x)):
        d = scales[k] * inverse - factors[k]
        most = max(most, abs(d))
        d /= factors[k]
        x[k] = powers[k] * (np.float32(1) + np.float32(2.4) * d + np.float32(1.68) * d * d)
    if most > np.float32(0.001):
        for k in range(len(x)):
            x[k] = (scales[k] * inverse) ** np.float32(2.4)


@compiled(f4[::1], f4[::1], numba.boolean, f4[::1], f4[::1], f4[::1], f4, f4, numba.int64[::1], f4[::1])
def bounds(
    v: Any, w: Any, weighted: Any, scales: Any, zeros: Any, x: Any, lowest: Any, highest: Any, chosen: Any, S: Any
) -> Any:
    """Bound 2. into S [k] for some ranges, and which of these has the least."""
    least = chosen[0]
    for k in chosen:
        first, last = lowest - zeros[k], highest - zeros[k]
        S[k] = x[k] * below(v, w, weighted, np.float32(1) / scales[k], first, last) * BELOW
        least = k if S[k] < S[least] else least
    return least


@compiled(f4[::1], f4[::1], f4[::1], f4, f4, f4, f4[::1], numba.int64[::1])
def others(S: Any, scales: Any, zeros: Any, reached: Any, size: Any, length: Any, beyond: Any, chosen: Any) -> Any:
    """Choose the ranges, except those of which S is known, that neither these nor their ends exclude; how many.

    By the triangle inequality: a grid whose scale is r times another's away has a norm of the errors of at least
    (norm of the other's - r length) / (1 + r), length being that of the values. And the root of y >= 1 is concave.
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
        powers[k] = factors[k] ** ROOT_OF
    above = one + np.float32(2.0**-16) + np.float32(n) * np.float32(2.0**-26)
    for i in range(start, end):
        left[i, :], only[i] = 1, -1
        v, w = values[i], weights[i % len(weights)]
        fit(low[i], high[i], factors, symmetric, twice, divisor, middle, dtype, least, scales, scale_bits, zeros)
        smallest, largest, w_end, mass, length = summary(v, w, weighted)
        if not (np.isfinite(scales.sum()) and np.isfinite(length) and mass > 0):
            continue
        unit = scales[0]
        length, end = length / unit, w_end ** (one / ROOT_OF) / unit
        ratios(scales, unit, factors, powers, x)
        slack = ROUGH * max(max(-low[i], high[i]), max(-smallest, largest)) / unit * mass ** (one / ROOT_OF)
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
                    beyond[k] = max(largest - top, bottom - smallest) * end
                number = others(S, scales, zeros, reached, size, length, beyond, chosen)
            if number > 0:
                chosen[0] = bounds(v, w, weighted, scales, zeros, x, lowest, highest, chosen[:number], S)
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
                    size = best ** (one / ROOT_OF)
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
