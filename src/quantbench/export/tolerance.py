"""How near the logits of an export must be to those of its run, by what the reader's arithmetic allows.

    exact    the reader dequantizes to the very weights of the run and computes the rest as the run did: on the same
             machine, with as many threads, its logits are the same bits
    rounded  the file holds the very values, and the reader rounds scales or weights to 16 bits on the way
    engine   the file holds the very weights, and the reader rounds the inputs of layers by an arithmetic of its own

KL(export || run) is a mean over tokens, in nats.
"""

from __future__ import annotations

from dataclasses import dataclass

from quantbench.export.subject import Equality


@dataclass(frozen=True)
class Tolerance:
    """The largest mean KL divergence, and the largest difference of a logit (None: any)."""

    kl: float
    logit: float | None


TOLERANCES: dict[Equality, Tolerance] = {
    "exact": Tolerance(1e-6, 1e-3),
    "rounded": Tolerance(1e-3, None),
    "engine": Tolerance(1e-2, None),
}
