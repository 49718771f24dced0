"""The kernel of rounding to nearest on integer grids, row by row: what takes a pass over memory for each of a dozen
operations otherwise takes one. Values are those of `quantbench.formats.grid.IntGrid`, to the last bit.

Symbols    W [out, in]   the weight           s [in]            what each column is multiplied by before
           t [out, g]    what it is clamped to, in each group; after the multiplication
           scales, zeros [out, g]             of groups of `size` columns, of which the last may be short
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from quantbench.kernels.jit import compiled
from quantbench.kernels.range_parts import INFINITY, stored

f4, i4, i8, u1 = numba.float32, numba.int32, numba.int64, numba.uint8
GRID = numba.types.Tuple((numba.boolean, f4, f4, f4, f4, f4, i8, f4))
"""symmetric, twice, divisor, middle, lowest, highest, dtype, least: as in `quantbench.kernels.ranges`."""


@compiled(f4[::1], fastmath=frozenset({"reassoc", "nsz", "nnan"}))
def ends(v: Any) -> Any:
    """The smallest and the largest value."""
    smallest, largest = v[0], v[0]
    for j in range(len(v)):
        smallest, largest = min(smallest, v[j]), max(largest, v[j])
    return smallest, largest


@compiled(f4[::1], i8, f4, GRID, f4[::1], i4[::1], f4[::1])
def fit(v: Any, size: Any, ratio: Any, grid: Any, scales: Any, bits: Any, zeros: Any) -> Any:
    """Scales and zero points [g] of a row v [in] for so much of the range of each group; whether all are finite.

    bits: a view of scales as int32.
    """
    symmetric, twice, divisor, middle, _, _, dtype, least = grid
    zero, one, biggest = np.float32(0), np.float32(1), np.int32(0)
    for g in range(len(scales)):
        low, high = ends(v[g * size : min(len(v), (g + 1) * size)])
        low, high = min(low, zero), max(high, zero)
        if low == high:
            low, high = -one, one
        low, high = low * ratio, high * ratio
        scales[g] = (twice * max(-low, high) if symmetric else high - low) / divisor
        zeros[g] = low
    stored(scales, bits, dtype)
    for g in range(len(scales)):
        scales[g] = max(scales[g], least)
        zeros[g] = middle if symmetric else np.rint(min(max(-zeros[g] / scales[g], zero), divisor))
        biggest = max(biggest, bits[g])
    return biggest < INFINITY


@compiled(i8, i8, f4[:, ::1], i8, GRID, u1[:, ::1], f4[:, ::1], f4[:, ::1])
def codes_of(
    start: Any,
    end: Any,
    W: Any,
    size: Any,
    grid: Any,
    codes: Any,
    scales: Any,
    zeros: Any,
) -> Any:
    """Codes [out, in], scales and zero points of the rows from start to end; whether all scales are finite."""
    finite, bits, lowest, highest = True, scales.view(np.int32), grid[4], grid[5]
    for i in range(start, end):
        finite &= fit(W[i], size, np.float32(1), grid, scales[i], bits[i], zeros[i])
        for g in range(scales.shape[1]):
            columns = slice(g * size, min(W.shape[1], (g + 1) * size))
            v, row, scale, zero = W[i, columns], codes[i, columns], scales[i, g], zeros[i, g]
            for j in range(len(v)):
                row[j] = np.uint8(min(max(np.rint(v[j] / scale) + zero, lowest), highest))
    return finite


@compiled(i8, i8, u1[:, ::1], i8, f4[:, ::1], f4[:, ::1], f4[:, ::1])
def values_of(start: Any, end: Any, codes: Any, size: Any, scales: Any, zeros: Any, values: Any) -> None:
    """The values [out, in] of the rows from start to end."""
    for i in range(start, end):
        for g in range(scales.shape[1]):
            columns = slice(g * size, min(codes.shape[1], (g + 1) * size))
            row, v, scale, zero = codes[i, columns], values[i, columns], scales[i, g], zeros[i, g]
            for j in range(len(v)):
                v[j] = (np.float32(row[j]) - zero) * scale


@compiled(i8, i8, f4[:, ::1], f4[::1], f4[:, ::1], i8, GRID, f4[:, ::1])
def errors_of(
    start: Any,
    end: Any,
    W: Any,
    s: Any,
    t: Any,
    size: Any,
    grid: Any,
    errors: Any,
) -> Any:
    """W - (values of W s, clamped to [-t, t]) / s for the rows from start to end; whether all scales are finite.

    t with no rows clamps nothing.
    """
    finite, y = True, np.empty(W.shape[1], np.float32)
    scales, zeros = np.empty((len(y) + size - 1) // size, np.float32), np.empty((len(y) + size - 1) // size, np.float32)
    bits, lowest, highest = scales.view(np.int32), grid[4], grid[5]
    for i in range(start, end):
        for j in range(len(y)):
            y[j] = W[i, j] * s[j]
        for g in range(len(scales) if len(t) else 0):
            v, bound = y[g * size : min(len(y), (g + 1) * size)], t[i, g]
            for j in range(len(v)):
                v[j] = min(max(v[j], -bound), bound)
        finite &= fit(y, size, np.float32(1), grid, scales, bits, zeros)
        for g in range(len(scales)):
            columns = slice(g * size, min(len(y), (g + 1) * size))
            v, w, d, e, scale, zero = y[columns], W[i, columns], s[columns], errors[i, columns], scales[g], zeros[g]
            for j in range(len(v)):
                level = min(max(np.rint(v[j] / scale) + zero, lowest), highest)
                e[j] = w[j] - ((level - zero) * scale) / d[j]
    return finite


@compiled(i8, i8, f4[:, ::1], f4, GRID, f4[:, ::1])
def rows_of(
    start: Any,
    end: Any,
    X: Any,
    ratio: Any,
    grid: Any,
    values: Any,
) -> Any:
    """The values of rows X [n, features] from start to end, each on a grid of its own; whether all are finite."""
    finite, scales, zeros = True, np.empty(1, np.float32), np.empty(1, np.float32)
    bits, lowest, highest = scales.view(np.int32), grid[4], grid[5]
    for i in range(start, end):
        v, row = X[i], values[i]
        finite &= fit(v, len(v), ratio, grid, scales, bits, zeros)
        scale, zero = scales[0], zeros[0]
        for j in range(len(v)):
            row[j] = (min(max(np.rint(v[j] / scale) + zero, lowest), highest) - zero) * scale
    return finite
