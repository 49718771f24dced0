"""Answers that quantization changes: a score can stay what it was while many answers swap sides.

(Dutta et al. 2024, "Accuracy is Not All You Need", arXiv 2407.09141.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from quantbench.metrics import statistics
from quantbench.metrics.statistics import Estimate, Values


@dataclass(frozen=True)
class Flips:
    """Among n items, those right in full precision and wrong now (lost), and the other way round (gained)."""

    lost: int
    gained: int
    n: int

    @property
    def share(self) -> float:
        """The share of items that changed sides."""
        return (self.lost + self.gained) / self.n


def flips(quantized: Values, full: Values) -> Flips:
    """Of two aligned columns [n] of 0 (wrong) and 1 (right). Raises ValueError for other values or lengths."""
    _check(quantized, full)
    return Flips(int((full > quantized).sum()), int((quantized > full).sum()), len(full))


def flips_wrong(quantized: Values, full: Values) -> Estimate:
    """The share of items that were right in full precision and are wrong now."""
    _check(quantized, full)
    return statistics.mean((full > quantized).astype(np.float64))


def flips_right(quantized: Values, full: Values) -> Estimate:
    """The share of items that were wrong in full precision and are right now."""
    _check(quantized, full)
    return statistics.mean((quantized > full).astype(np.float64))


def agreement(quantized: Values, full: Values) -> Estimate:
    """The share of items on which both give the same answer, from aligned columns [n] of answers' numbers.

    From columns of 0 and 1 it is the share of items that are right in both or wrong in both.
    """
    if len(quantized) != len(full):
        raise ValueError(f"aligned columns have one length, not {len(quantized)} and {len(full)}")
    return statistics.mean((quantized == full).astype(np.float64))


def above_chance(accuracy: Estimate, chance: float) -> Estimate:
    """(accuracy - chance) / (1 - chance): 0 for guessing, 1 for all right. Raises ValueError unless 0 <= chance < 1."""
    if not 0 <= chance < 1:
        raise ValueError(f"chance is a share of items below 1, not {chance}")
    return Estimate((accuracy.value - chance) / (1 - chance), accuracy.influence / (1 - chance))


def _check(quantized: Values, full: Values) -> None:
    if len(quantized) != len(full):
        raise ValueError(f"aligned columns have one length, not {len(quantized)} and {len(full)}")
    if not np.isin(np.concatenate([quantized, full]), (0, 1)).all():
        raise ValueError("flips are counted between columns of 0 (wrong) and 1 (right)")
