"""Replicates: the same calibration sequences in another order.

Quantizing twice gives the same weights to the bit on one machine, so that a plain repetition shows nothing. No method
means to depend on the order of its sequences, but sums of statistics round differently, and methods that learn or
subsample see other batches: what a replicate changes is the noise of the method itself, apart from its data.
"""

from __future__ import annotations

import dataclasses
import random

from quantbench.calibration.base import CalibSet


def reordered(calib: CalibSet, replicate: int) -> CalibSet:
    """The set with its sequences [N, L] in the order of the replicate: 0 as they were drawn, others permuted.

    The order depends on the replicate's number and N alone. What each sequence holds stays as it is.
    """
    if replicate == 0:
        return calib
    order = list(range(len(calib.tokens)))
    random.Random(replicate).shuffle(order)
    return dataclasses.replace(calib, tokens=calib.tokens[order])
