"""Exact identities of n-grams, by doubling."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]


def ngram_ids(items: Integers, n: int) -> Integers:
    """Numbers [T - n + 1] of the n-grams that begin at each of the T items: equal exactly where the n-grams are equal.

    There are no collisions, because nothing is hashed. With r_w[i] the number of the w-gram at i, the (w + s)-gram
    there, s <= w, is the pair (r_w[i], r_w[i + s]); the pairs are ranked, and w doubles until it is n (Karp, Miller and
    Rosenberg 1972). O(T log T log n). Empty for T < n.
    """
    if len(items) < n:
        return np.empty(0, dtype=np.int64)
    ranks = np.unique(items, return_inverse=True)[1].astype(np.int64)
    width = 1
    while width < n:
        step = min(width, n - width)
        pairs = ranks[:-step] * (int(ranks.max()) + 1) + ranks[step:]
        ranks = np.unique(pairs, return_inverse=True)[1].astype(np.int64)
        width += step
    return ranks
