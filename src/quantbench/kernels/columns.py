"""The kernel of GPTQ's step 4b (`quantbench.rounding.gptq`) on integer grids: a few columns, for some of the rows.

Rows are independent: a part of them stays in the cache while column after column is rounded. Values, codes and errors
are computed as `IntGrid` has them; only the order in which errors are summed is another one.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from quantbench.kernels.jit import compiled

f4 = numba.float32
ROWS = 512  # at a time: with 32 columns and their errors 128 KiB


@compiled(f4[::1], f4, f4[::1], f4[::1], f4, f4, numba.boolean, numba.uint8[::1], f4[::1])
def column(
    w: Any, diagonal: Any, scale: Any, zero: Any, lowest: Any, highest: Any, integer: Any, codes: Any, errors: Any
) -> None:
    """The codes of one column w [rows], and its errors relative to U_ii; integer: whether zero points are levels."""
    for row in range(len(w)):
        level = w[row] / scale[row]
        level = np.rint(level) + zero[row] if integer else np.rint(level + zero[row])
        level = min(max(level, lowest), highest)
        codes[row] = np.uint8(level)
        errors[row] = (w[row] - (level - zero[row]) * scale[row]) / diagonal


@compiled(f4[::1], f4, f4[::1], fastmath=frozenset({"contract"}))
def spread(errors: Any, u: Any, later: Any) -> None:
    """Step 4b for a column still to come: its values less u times the errors [rows]."""
    for row in range(len(errors)):
        later[row] -= u * errors[row]


@compiled(
    numba.int64, numba.int64, f4[:, ::1], f4[:, ::1], f4[:, ::1], f4[:, ::1], numba.int64[::1], f4, f4, numba.boolean,
    numba.uint8[:, ::1], f4[:, ::1],
)  # fmt: skip
def round_columns(
    start: Any,
    end: Any,
    W: Any,
    U: Any,
    scales: Any,
    zeros: Any,
    groups: Any,
    lowest: Any,
    highest: Any,
    integer: Any,
    codes: Any,
    E: Any,
) -> None:
    """Round the rows from start to end of n columns W [n, out], one after another; W is used up.

    U [n, n]: the part of the columns; scales, zeros [g, out], of which groups [n] tells the row; codes, E [n, out].
    """
    n = len(W)
    for first in range(start, end, ROWS):
        last = min(first + ROWS, end)
        for i in range(n):
            scale, zero = scales[groups[i], first:last], zeros[groups[i], first:last]
            errors = E[i, first:last]
            column(W[i, first:last], U[i, i], scale, zero, lowest, highest, integer, codes[i, first:last], errors)
            for j in range(i + 1, n):
                spread(errors, U[i, j], W[j, first:last])
