"""Which sequences go through the model together.

Sequences of one length do, so nothing is ever padded: what a sequence gives does not depend on those beside it, also
where activations or the key-value cache are quantized.
"""

from __future__ import annotations

from collections.abc import Sequence

BATCH_TOKENS = 4096
"""Most tokens that go through the model at once."""


def batches(lengths: Sequence[int], budget: int = BATCH_TOKENS) -> list[list[int]]:
    """Indices grouped by equal length, in groups of at most `budget` tokens (but at least one sequence)."""
    groups: dict[int, list[int]] = {}
    for index, length in enumerate(lengths):
        groups.setdefault(length, []).append(index)
    found = []
    for length in sorted(groups):
        size = max(1, budget // length)
        found += [groups[length][i : i + size] for i in range(0, len(groups[length]), size)]
    return found
