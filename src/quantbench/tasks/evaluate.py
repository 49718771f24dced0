"""The one evaluation loop: windows -> hidden states -> logits in chunks -> consumers -> one row per window."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd
import torch
from torch import Tensor, nn

from quantbench.core.progress import ProgressCallback
from quantbench.models.handle import ModelHandle
from quantbench.tasks.consumers import Consumer, Divergence, NegativeLogLikelihood
from quantbench.tasks.logits import SplitModel, log_probabilities
from quantbench.tasks.overflow import overflowed
from quantbench.tasks.reference import Reference


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
        original_head = None if reference is None else split.original_head(handle)
        for index, tokens in enumerate(windows.to(device)):
            hidden = split.hidden(tokens[None])[:-1]
            original = None if reference is None else reference.window(index, hidden)
            means = _score(split, hidden, original, original_head, tokens[1:])
            if bad := [name for name, value in means.items() if not math.isfinite(value)]:
                raise overflowed(names[index], ", ".join(bad))
            rows.append(means)
            progress(index + 1, len(windows))
    if reference is not None:
        reference.finish()
    return pd.DataFrame(rows)


def _score(
    split: SplitModel, hidden: Tensor, original: Tensor | None, original_head: nn.Module | None, targets: Tensor
) -> dict[str, float]:
    """Means over a window's positions from hidden states [T, d], the reference's [T, d], and targets int64 [T]."""
    consumers: list[Consumer] = [NegativeLogLikelihood()]
    if original is not None:
        consumers.append(Divergence())
    step = split.positions_per_chunk()
    for start in range(0, len(hidden), step):
        chunk = slice(start, start + step)
        ours = log_probabilities(split.logits(hidden[chunk]))
        theirs = None if original is None else log_probabilities(split.logits(original[chunk], original_head))
        for block, log_probs in ours:
            wanted = None if theirs is None else next(theirs)[1]
            for consumer in consumers:
                consumer.update(log_probs, targets[chunk][block], wanted)
    return {name: value for consumer in consumers for name, value in consumer.means().items()}
