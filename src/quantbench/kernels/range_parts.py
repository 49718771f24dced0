"""What the kernel `quantbench.kernels.ranges` computes of one group and one or several ranges; symbols as there."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from quantbench.kernels.jit import compiled

f4, i4 = numba.float32, numba.int32
SUMS = frozenset({"reassoc", "nsz", "contract"})  # sums in any order; bounds have margins for it

HALF, SINGLE = 0, 2  # dtypes of scales; 1 is bfloat16
INFINITY = np.int32(0x7F800000)  # the bits of infinity, above those of all finite numbers >= 0

C0, C1, C2, C3, C4 = (np.float32(c) for c in (-0.000977, 0.45959, 2.4834, -8.0573, 11.8323))
"""p(u) = C0 + C1 u + .. + C4 u^4: of all such polynomials the one with the largest mean over uniform errors."""
SLOPE = np.float32(0.909)  # of u^1.2 at u = 1/4, rounded down
ROOT = np.float32(1.2 * (127 - 0.045) * 2**23)  # the bits of u^(-1/5) are about ROOT - bits of u / 5
NORM = np.float32(2.4)
"""S is a power of a norm."""
BELOW = np.float32(1 - 2.0**-12)  # bounds are so much less than computed, for errors of float32


@compiled(f4[::1], i4[::1], numba.int64)
def stored(scales: Any, bits: Any, dtype: Any) -> None:
    """Round scales >= 0 to a dtype, which makes of those that are too large infinity; bits: a view of them as int32."""
    if dtype == SINGLE:
        return
    drop = 13 if dtype == HALF else 16
    for k in range(len(scales)):
        if dtype == HALF and scales[k] < np.float32(2.0**-14):  # subnormal
            scales[k] = np.rint(scales[k] * np.float32(2.0**24)) * np.float32(2.0**-24)
        else:
            odd = (bits[k] >> drop) & 1
            bits[k] = ((bits[k] + odd + (1 << (drop - 1)) - 1) >> drop) << drop
        if dtype == HALF and scales[k] > np.float32(65504.0):
            scales[k] = np.inf


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
) -> Any:
    """`IntGrid.fit` for the ranges factor * [low, high], to the last bit; whether all scales are finite.

    bits: a view of scales as int32.
    """
    for k in range(len(factors)):
        a, b = low * factors[k], high * factors[k]
        scales[k] = (twice * max(-a, b) if symmetric else b - a) / divisor
    stored(scales, bits, dtype)
    for k in range(len(factors)):
        scales[k] = max(scales[k], least)
        zeros[k] = middle if symmetric else np.rint(min(max(-(low * factors[k]) / scales[k], np.float32(0)), divisor))
    largest = np.int32(0)
    for k in range(len(factors)):
        largest = max(largest, bits[k])
    return largest < INFINITY


@compiled(f4[::1], f4, f4[::1], f4[::1], f4[::1], fastmath=SUMS | {"nnan"})
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


@compiled(
    f4[::1], f4[::1], numba.boolean, f4[::1], f4[::1], f4[::1], f4, f4, numba.int64[::1], numba.int64, f4[::1],
    fastmath=SUMS,
)  # fmt: skip
def below(
    v: Any,
    w: Any,
    weighted: Any,
    scales: Any,
    zeros: Any,
    x: Any,
    lowest: Any,
    highest: Any,
    chosen: Any,
    number: Any,
    S: Any,
) -> Any:
    """Bound 3. into S [k] for the ranges chosen[:number], and which of these has the least; x [k]: their s_k^2.4."""
    least, quarter = chosen[0], np.float32(0.25)
    for index in range(number):
        k = chosen[index]
        step, first, last = np.float32(1) / scales[k], lowest - zeros[k], highest - zeros[k]
        total, beyond = np.float32(0), np.float32(0)
        if weighted:
            for j in range(len(v)):
                y = v[j] * step
                e = y - min(max(np.rint(y), first), last)
                u = e * e
                m = min(u, quarter)
                total += w[j] * (C0 + m * (C1 + m * (C2 + m * (C3 + m * C4))))
                beyond += w[j] * (u - m)
        else:
            for j in range(len(v)):
                y = v[j] * step
                e = y - min(max(np.rint(y), first), last)
                u = e * e
                m = min(u, quarter)
                total += m * (C1 + m * (C2 + m * (C3 + m * C4)))
                beyond += u - m
            total += C0 * np.float32(len(v))
        S[k] = x[k] * (total + SLOPE * beyond) * BELOW
        least = k if S[k] < S[least] else least
    return least


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
