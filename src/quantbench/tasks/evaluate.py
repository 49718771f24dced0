"""The one evaluation loop: windows -> hidden states -> logits in chunks -> consumers -> one row per window."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd
import torch
from torch import Tensor

from quantbench.core.progress import ProgressCallback
from quantbench.models.handle import ModelHandle
from quantbench.tasks.consumers import Consumer, Divergence, NegativeLogLikelihood
from quantbench.tasks.logits import SplitModel
from quantbench.tasks.overflow import overflowed
from quantbench.tasks.reference import Reference

BLOCK_BYTES = 4 << 20
"""Bytes of log-probabilities consumers get at a time: few enough for a processor's cache, which halves the time."""


def evaluate(
    handle: ModelHandle,
    windows: Tensor,
    names: Sequence[str],
    reference: Reference | None,
    device: torch.device,
    progress: ProgressCallback,
) -> pd.DataFrame:
    """Score every token but the first of every window, int64 [W, L], with the model as it stands in `handle`.

    Gives W rows of the consumers' means: nll, and with a reference kl and top1_agreement. A reference that captures is
    written when all windows are through. Raises ModelError with the window's name if a result is not finite.
    """
    rows = []
    with torch.no_grad(), handle.on_device(device) as model:
        split = SplitModel(model)
        for index, tokens in enumerate(windows.to(device)):
            hidden = split.hidden(tokens[None])[:-1]
            original = None if reference is None else reference.window(index, hidden)
            means = _score(handle, split, hidden, original, tokens[1:])
            if bad := [name for name, value in means.items() if not math.isfinite(value)]:
                raise overflowed(names[index], ", ".join(bad))
            rows.append(means)
            progress(index + 1, len(windows))
    if reference is not None:
        reference.finish()
    return pd.DataFrame(rows)


def _score(
    handle: ModelHandle, split: SplitModel, hidden: Tensor, original: Tensor | None, targets: Tensor
) -> dict[str, float]:
    """Means over a window's positions from hidden states [T, d], the reference's [T, d], and targets int64 [T]."""
    consumers: list[Consumer] = [NegativeLogLikelihood()]
    if original is not None:
        consumers.append(Divergence())
    step = split.positions_per_chunk()
    for start in range(0, len(hidden), step):
        chunk = slice(start, start + step)
        logits = split.logits(hidden[chunk])
        reference = None
        if original is not None:
            with handle.full_precision_head():
                reference = split.logits(original[chunk])
        _feed(consumers, logits, reference, targets[chunk])
    return {name: value for consumer in consumers for name, value in consumer.means().items()}


def _feed(consumers: list[Consumer], logits: Tensor, reference: Tensor | None, targets: Tensor) -> None:
    step = max(1, BLOCK_BYTES // (4 * logits.shape[1]))
    for start in range(0, len(logits), step):
        block = slice(start, start + step)
        log_probs = logits[block].log_softmax(1)
        wanted = None if reference is None else reference[block].log_softmax(1)
        for consumer in consumers:
            consumer.update(log_probs, targets[block], wanted)
