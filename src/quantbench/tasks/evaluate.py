"""The one evaluation loop: windows -> hidden states -> logits in chunks -> outcomes at positions -> items."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from quantbench.core.progress import ProgressCallback
from quantbench.metrics.positions import by_confidence
from quantbench.models.handle import ModelHandle
from quantbench.tasks.blockwise import blockwise
from quantbench.tasks.logits import SplitModel
from quantbench.tasks.overflow import overflowed
from quantbench.tasks.positions import distributions, outcomes
from quantbench.tasks.reference import Reference

Columns = dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Evaluated:
    """What W windows of T scored positions each give.

    items      one row a window: means over its positions, nll and with a reference kl, reverse_kl, top1_agreement,
               squared_dp (of delta_p), and the columns of quantbench.metrics.positions.by_confidence
    positions  one row a position, those of a window together: window, position (which token of the window came), and
               the columns of quantbench.tasks.positions.outcomes in float32, same_top1 as a truth value
    """

    items: pd.DataFrame
    positions: pd.DataFrame


def evaluate(
    handle: ModelHandle,
    windows: Tensor,
    names: Sequence[str],
    reference: Reference | None,
    device: torch.device,
    progress: ProgressCallback,
) -> Evaluated:
    """Score every token but the first of every window, int64 [W, L], with the model as it stands in `handle`.

    A reference that captures is written when all windows are through. Raises ModelError with the window's name if a
    result is not finite.
    """
    rows, kept = [], []
    with torch.no_grad(), _placed(handle, device) as (split, states):
        original_head = None if reference is None else split.original_head(handle)
        for index, (tokens, last) in enumerate(zip(windows.to(device), states(windows), strict=True)):
            hidden = last[:-1]
            original = None if reference is None else reference.window(index, hidden)
            found = _score(split, hidden, original, original_head, tokens[1:])
            means = _means(found)
            if bad := [name for name, value in means.items() if not math.isfinite(value)]:
                raise overflowed(names[index], ", ".join(bad))
            rows.append(means)
            kept.append({name: column.float() for name, column in found.items()})
            progress(index + 1, len(windows))
    if reference is not None:
        reference.finish()
    return _evaluated(pd.DataFrame(rows), kept)


@contextmanager
def _placed(
    handle: ModelHandle, device: torch.device
) -> Iterator[tuple[SplitModel, Callable[[Tensor], Iterator[Tensor]]]]:
    """The model, which computes on `device`, and what gives the last hidden states [L, d] of each of W windows."""
    if handle.large and not _fits(handle, device):
        split = SplitModel(handle.model, device)
        yield split, partial(blockwise, split, device=device)
        return
    with handle.on_device(device) as model:
        split = SplitModel(model)
        yield split, lambda windows: (split.hidden(tokens[None]) for tokens in windows.to(device))


def _fits(handle: ModelHandle, device: torch.device) -> bool:
    """Whether a GPU has memory for the model and a fifth of it besides."""
    return device.type == "cuda" and torch.cuda.mem_get_info(device)[0] > 1.2 * handle.bytes


def _score(
    split: SplitModel, hidden: Tensor, original: Tensor | None, original_head: nn.Module | None, targets: Tensor
) -> Columns:
    """The outcomes at a window's positions, from hidden states [T, d], the reference's [T, d], targets int64 [T]."""
    found: list[Columns] = []
    step = split.positions_per_chunk()
    # What captures a reference is the full-precision model, whose logits need not be computed a second time.
    itself = original is hidden
    for start in range(0, len(hidden), step):
        chunk = slice(start, start + step)
        ours = distributions(split.logits(hidden[chunk]))
        theirs = None
        if original is not None and not itself:
            theirs = distributions(split.logits(original[chunk], original_head))
        for block, q in ours:
            p = next(theirs)[1] if theirs is not None else q if itself else None
            found.append(outcomes(q, targets[chunk][block], p))
    return {name: torch.cat([part[name] for part in found]).cpu() for name in found[0]}


def _means(found: Columns) -> dict[str, float]:
    """Item columns of one window."""
    means = {"nll": found["nll"]}
    if "kl" in found:
        means |= {name: found[name] for name in ("kl", "reverse_kl")}
        means |= {"top1_agreement": found["same_top1"], "squared_dp": found["delta_p"].square()}
    return {name: float(column.mean()) for name, column in means.items()}


def _evaluated(items: pd.DataFrame, kept: Sequence[Columns]) -> Evaluated:
    n = [len(columns["nll"]) for columns in kept]
    window = np.repeat(np.arange(len(n), dtype=np.int64), n)
    position = np.concatenate([np.arange(1, length + 1, dtype=np.int32) for length in n])
    measured = {name: torch.cat([columns[name] for columns in kept]).numpy() for name in kept[0]}
    if "same_top1" in measured:
        measured["same_top1"] = measured["same_top1"] > 0
        kl, entropy = (measured[name].astype(np.float64) for name in ("kl", "entropy"))
        items = pd.concat([items, by_confidence(kl, entropy, window, len(n))], axis=1)
    return Evaluated(items, pd.DataFrame({"window": window, "position": position, **measured}))
