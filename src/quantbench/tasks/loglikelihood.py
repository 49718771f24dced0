"""Log-likelihoods of token sequences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from quantbench.core.mixing import Mixing
from quantbench.core.progress import ProgressCallback
from quantbench.tasks.batches import alone, run_batches
from quantbench.tasks.logits import SplitModel, log_probabilities
from quantbench.tasks.overflow import overflowed

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Continuation:
    """Tokens of which those from `start` are scored, given those before."""

    tokens: tuple[int, ...]
    start: int


def loglikelihoods(
    model: PreTrainedModel,
    wanted: Sequence[Continuation],
    mixing: Mixing,
    device: torch.device,
    progress: ProgressCallback,
) -> list[float]:
    """Sum of log p(token | tokens before), in nats, over the scored tokens of each continuation.

    What one continuation reads and is a prefix of what another one reads is computed once: labels of one token cost
    one forward an item. Where the model's operations mix tokens of a sequence, only what is the same is.
    """
    split = SplitModel(model)
    inputs = [one.tokens[:-1] for one in wanted]
    hosts = inputs if alone(mixing) else _hosts(inputs)
    rows = sorted(set(hosts))
    number_of = {row: number for number, row in enumerate(rows)}
    guests: list[list[int]] = [[] for _ in rows]
    for index, host in enumerate(hosts):
        guests[number_of[host]].append(index)
    totals = [0.0] * len(wanted)
    done = 0

    def run(batch: list[int]) -> list[tuple[int, float]]:
        states = split.hidden_batch(torch.tensor([rows[i] for i in batch], device=device))
        owners, where, targets = [], [], []
        for number, row in enumerate(batch):
            for guest in guests[row]:
                one = wanted[guest]
                for position in range(one.start, len(one.tokens)):
                    owners.append(guest)
                    where.append((number, position - 1))
                    targets.append(one.tokens[position])
        read = states[tuple(torch.tensor(where, device=device).T)]
        return list(zip(owners, _log_probs(split, read, targets), strict=True))

    for batch, found in run_batches([len(row) for row in rows], mixing, device, run):
        for owner, value in found:
            totals[owner] += value
        done += len(batch)
        progress(done, len(rows))
    return totals


def _hosts(inputs: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """For each input the longest one of the list that begins with it. In sorted order it stands right behind it."""
    order = sorted(range(len(inputs)), key=lambda i: inputs[i])
    hosts = list(inputs)
    for one, after in zip(reversed(order[:-1]), reversed(order[1:]), strict=True):
        if inputs[after][: len(inputs[one])] == inputs[one]:
            hosts[one] = hosts[after]
    return hosts


def _log_probs(split: SplitModel, states: Tensor, targets: Sequence[int]) -> list[float]:
    """Log p of each target, float64, from hidden states [T, d]."""
    step = split.positions_per_chunk()
    wanted = torch.tensor(targets, device=states.device)
    found: list[float] = []
    for start in range(0, len(states), step):
        ours = wanted[start : start + step]
        for block, log_probs in log_probabilities(split.logits(states[start : start + step])):
            found += log_probs.gather(1, ours[block, None])[:, 0].tolist()
    return found


def check_finite(values: Sequence[float], task: str, items: Sequence[str]) -> None:
    """Raise ModelError naming the task and the first item whose value is not finite."""
    for item, value in zip(items, values, strict=True):
        if not math.isfinite(value):
            raise overflowed(f"task {task}, item {item}", "the log-likelihood")
