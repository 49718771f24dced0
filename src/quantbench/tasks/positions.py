"""What is measured at each scored position of a text, from the distributions of the next token.

p is the full-precision model's distribution, q the evaluated one's, both over the whole vocabulary; everything is in
nats. (The definitions of llama.cpp's `--kl-divergence`, but for reverse_kl and entropy.)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from quantbench.tasks.logits import blocks


@dataclass(frozen=True, eq=False)
class Distributions:
    """Of the next token at T positions, over V tokens.

    log_probs  float64 [T, V]
    weights    float64 [T, V]: the probabilities, but for the factor total [T]
    best       int64 [T]: the most likely token
    """

    log_probs: Tensor
    weights: Tensor
    total: Tensor
    best: Tensor


def distributions(logits: Tensor) -> Iterator[tuple[slice, Distributions]]:
    """Of logits [T, V], a block of positions at a time, with its slice of T (quantbench.tasks.logits.blocks).

    One exponential an element gives both the logarithms and the probabilities: it is what takes the time.
    """
    for block in blocks(logits):
        shifted = logits[block].double()
        best = shifted.argmax(1)
        shifted -= shifted.gather(1, best[:, None])
        weights = shifted.exp()
        total = weights.sum(1)
        shifted -= total.log()[:, None]
        yield block, Distributions(shifted, weights, total, best)


def outcomes(ours: Distributions, targets: Tensor, theirs: Distributions | None) -> dict[str, Tensor]:
    """Columns float64 [T] of the positions at which the tokens `targets`, int64 [T], came.

    ours    q
    theirs  p; None: only nll can be had

    nll         -log q(token)
    kl          KL(p || q) = sum_v p(v) (log p(v) - log q(v)); exactly 0 where the logits are identical
    reverse_kl  KL(q || p)
    delta_p     q(token) - p(token)
    same_top1   1 where both have the same most likely token, else 0
    entropy     of p
    """
    log_q = ours.log_probs.gather(1, targets[:, None])[:, 0]
    if theirs is None:
        return {"nll": -log_q}
    apart = theirs.log_probs - ours.log_probs
    return {
        "nll": -log_q,
        "kl": torch.linalg.vecdot(theirs.weights, apart) / theirs.total,
        "reverse_kl": -torch.linalg.vecdot(ours.weights, apart) / ours.total,
        "delta_p": log_q.exp() - theirs.log_probs.gather(1, targets[:, None])[:, 0].exp(),
        "same_top1": (ours.best == theirs.best).double(),
        "entropy": -torch.linalg.vecdot(theirs.weights, theirs.log_probs) / theirs.total,
    }
