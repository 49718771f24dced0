"""Consumers of the evaluation loop: what is measured at each scored position of a window.

The loop normalizes logits once, for all consumers; each takes a block of positions at a time and gives the mean over
the window at its end.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Consumer(Protocol):
    """Accumulates over the blocks of one window."""

    def update(self, log_probs: Tensor, targets: Tensor, reference: Tensor | None) -> None:
        """Take log-probabilities float64 [T, V], the tokens that came int64 [T], and the reference's [T, V]."""
        ...

    def means(self) -> dict[str, float]:
        """Means over all positions taken, by item column."""
        ...


class _Mean:
    def __init__(self) -> None:
        self._total: Tensor | None = None
        self._count = 0

    def add(self, values: Tensor) -> None:
        part = values.sum()
        self._total = part if self._total is None else self._total + part
        self._count += len(values)

    def value(self) -> float:
        assert self._total is not None
        return float(self._total) / self._count


class NegativeLogLikelihood:
    """Column nll: mean nats per token, -log p(token)."""

    def __init__(self) -> None:
        self._nll = _Mean()

    def update(self, log_probs: Tensor, targets: Tensor, reference: Tensor | None) -> None:  # noqa: ARG002
        """Take a block. The reference is not read."""
        self._nll.add(-log_probs.gather(1, targets[:, None])[:, 0])

    def means(self) -> dict[str, float]:
        """The column nll."""
        return {"nll": self._nll.value()}


class Divergence:
    """Column kl: mean over positions of KL(p || q) = sum_v p(v) (log p(v) - log q(v)), the whole vocabulary, in nats.

    p is the full-precision model's distribution, q the evaluated one's: exactly 0 where their logits are identical.
    Column top1_agreement: the share of positions at which both have the same most likely token.
    (The definitions of llama.cpp's `--kl-divergence`.)
    """

    def __init__(self) -> None:
        self._kl, self._agreement = _Mean(), _Mean()

    def update(self, log_probs: Tensor, targets: Tensor, reference: Tensor | None) -> None:  # noqa: ARG002 - it does not matter which token came
        """Take a block; here the reference is required."""
        assert reference is not None
        self._agreement.add((log_probs.argmax(1) == reference.argmax(1)).double())
        self._kl.add(torch.linalg.vecdot(reference.exp(), reference - log_probs))

    def means(self) -> dict[str, float]:
        """The columns kl and top1_agreement."""
        return {"kl": self._kl.value(), "top1_agreement": self._agreement.value()}
