"""Which sequences go through the model together.

Sequences of one length do, so nothing is ever padded. Where a quantized model lets tokens of a sequence, or of a batch,
act on each other, each sequence goes through alone: what it gives never depends on those beside it.
"""

from __future__ import annotations

from collections.abc import Sequence

from quantbench.core.mixing import Mixing

BATCH_TOKENS = 4096
"""Most tokens that go through the model at once."""


def alone(mixing: Mixing) -> bool:
    """Whether each sequence must be computed as it is: not in a batch, and not as the beginning of a longer one."""
    return mixing >= Mixing.SEQUENCE


def batches(lengths: Sequence[int], mixing: Mixing, budget: int = BATCH_TOKENS) -> list[list[int]]:
    """Indices grouped by equal length, in groups of at most `budget` tokens (but at least one sequence); or alone."""
    if alone(mixing):
        return [[index] for index in range(len(lengths))]
    groups: dict[int, list[int]] = {}
    for index, length in enumerate(lengths):
        groups.setdefault(length, []).append(index)
    found = []
    for length in sorted(groups):
        size = max(1, budget // length)
        found += [groups[length][i : i + size] for i in range(0, len(groups[length]), size)]
    return found
