"""Sharing a whole number out by weights: every share within one of its exact part, all of them adding up."""

from __future__ import annotations

import math
from collections.abc import Sequence


def largest_remainder(total: int, weights: Sequence[float]) -> list[int]:
    """Shares of `total` in proportion to non-negative weights (Hamilton's method).

    Each share is its exact part rounded down, and what is left goes, one each, to the largest remainders; equal
    remainders are served in order.
    """
    whole = math.fsum(weights)
    exact = [total * weight / whole for weight in weights]
    # A part that is whole but for the error of the division stays whole.
    shares = [round(part) if math.isclose(part, round(part), rel_tol=1e-9) else math.floor(part) for part in exact]
    by_remainder = sorted(range(len(weights)), key=lambda i: (shares[i] - exact[i], i))
    for index in by_remainder[: total - sum(shares)]:
        shares[index] += 1
    return shares


def evenly(total: int, capacities: Sequence[int]) -> list[int]:
    """Shares of `total` as equal as they can be with none above its capacity; less than `total` if all are full."""
    shares = [0] * len(capacities)
    left = min(total, sum(capacities))
    while left:
        open_ones = [i for i, capacity in enumerate(capacities) if shares[i] < capacity]
        each = max(1, min(left // len(open_ones), *(capacities[i] - shares[i] for i in open_ones)))
        for index in open_ones[: left if left < len(open_ones) else None]:
            shares[index] += each
        left = min(total, sum(capacities)) - sum(shares)
    return shares
