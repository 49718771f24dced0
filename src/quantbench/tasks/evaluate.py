"""The one evaluation loop: windows -> hidden states -> logits in chunks -> consumers -> one row per window."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd
import torch
from torch import Tensor

from quantbench.core.errors import ModelError
from quantbench.models.folder import max_length
from quantbench.models.handle import ModelHandle
from quantbench.tasks.consumers import Consumer, Divergence, NegativeLogLikelihood
from quantbench.tasks.logits import SplitModel
from quantbench.tasks.reference import Reference

if TYPE_CHECKING:
    from quantbench.tasks.windows import Windows

BLOCK_BYTES = 4 << 20
"""Bytes of log-probabilities consumers get at a time: few enough for a processor's cache, which halves the time."""


@dataclass(frozen=True)
class EvalResult:
    """One row per window: item, document (str), n_tokens, n_bytes, nll, and with a reference kl and same_top.

    seconds   wall-clock time of the loop
    n_tokens  scored tokens over all windows
    """

    items: pd.DataFrame
    seconds: float
    n_tokens: int


def evaluate(
    handle: ModelHandle,
    windows: Windows,
    task: str,
    reference: Reference | None,
    device: torch.device,
    progress: Callable[[int, int], None],
) -> EvalResult:
    """Score every token but the first of every window, with the model as it stands in `handle`.

    A reference that captures is written when all windows are through. Raises ConfigError if windows are longer than the
    model takes, ModelError naming task and window if a result is not finite.
    """
    windows.check_length(max_length(handle.model.config), task)
    started = time.perf_counter()
    rows = []
    with torch.no_grad(), handle.on_device(device) as model:
        split = SplitModel(model)
        for index, tokens in enumerate(windows.tokens.to(device)):
            hidden = split.hidden(tokens[None])[:-1]
            original = None if reference is None else reference.window(index, hidden)
            means = _score(handle, split, hidden, original, tokens[1:])
            _check_finite(means, task, index, windows)
            rows.append(means)
            progress(index + 1, len(windows.tokens))
    if reference is not None:
        reference.finish()
    items = pd.concat([windows.frame(), pd.DataFrame(rows)], axis=1)
    return EvalResult(items, time.perf_counter() - started, int(items["n_tokens"].sum()))


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


def _check_finite(means: dict[str, float], task: str, index: int, windows: Windows) -> None:
    bad = [name for name, value in means.items() if not math.isfinite(value)]
    if bad:
        raise ModelError(
            f"task {task}, window {index} (at token {windows.offsets[index]}): {', '.join(bad)} is not finite, because "
            "the model's outputs overflowed. Quantization to few bits can break a model like this: use more bits; "
            "or, if it happens in full precision, another model.dtype (float16 overflows first)."
        )
