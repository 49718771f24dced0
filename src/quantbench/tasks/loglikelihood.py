"""Log-likelihoods and greedy continuations of token sequences.

Sequences of one length go through the model together, so nothing is ever padded: what a sequence gives does not depend
on those beside it, also where activations or the key-value cache are quantized.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from quantbench.core.errors import ModelError
from quantbench.tasks.logits import SplitModel
from quantbench.tasks.task import Show

BATCH_TOKENS = 4096
"""Most tokens that go through the model at once."""


@dataclass(frozen=True)
class Continuation:
    """Tokens of which those from `start` are scored, given those before."""

    tokens: tuple[int, ...]
    start: int


def batches(lengths: Sequence[int], budget: int = BATCH_TOKENS) -> list[list[int]]:
    """Indices grouped by equal length, in groups of at most `budget` tokens (but at least one sequence)."""
    groups: dict[int, list[int]] = {}
    for index, length in enumerate(lengths):
        groups.setdefault(length, []).append(index)
    found = []
    for length in sorted(groups):
        size = max(1, budget // length)
        found += [groups[length][i : i + size] for i in range(0, len(groups[length]), size)]
    return found


def loglikelihoods(
    model: PreTrainedModel, wanted: Sequence[Continuation], device: torch.device, show: Show
) -> list[float]:
    """Sum of log p(token | tokens before), in nats, over the scored tokens of each continuation.

    What one continuation reads and is a prefix of what another one reads is computed once: labels of one token cost
    one forward an item.
    """
    split = SplitModel(model)
    hosts = _hosts([one.tokens[:-1] for one in wanted])
    rows = sorted(set(hosts))
    place = {row: number for number, row in enumerate(rows)}
    guests: list[list[int]] = [[] for _ in rows]
    for index, host in enumerate(hosts):
        guests[place[host]].append(index)
    totals = [0.0] * len(wanted)
    done = 0
    for batch in batches([len(row) for row in rows]):
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
        for owner, value in zip(owners, _log_probs(split, read, targets), strict=True):
            totals[owner] += value
        done += len(batch)
        show(done, len(rows))
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
        log_probs = split.logits(states[start : start + step]).log_softmax(1)
        found += log_probs.gather(1, wanted[start : start + step, None])[:, 0].double().tolist()
    return found


def greedy(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    stopped: Callable[[Sequence[int]], bool],
    cached: bool,
    device: torch.device,
    show: Show,
) -> list[list[int]]:
    """The most likely continuation of each prompt, token by token, until `stopped` says so or at max_new_tokens.

    cached  keep keys and values of what was read. False: read everything again for each token, which is the only right
            way where keys and values are quantized at run time, since that is computed on whole sequences
    """
    found: list[list[int]] = [[] for _ in prompts]
    step = _Cached(model) if cached else _Again(model)
    done = 0
    for batch in batches([len(prompt) + max_new_tokens for prompt in prompts]):
        tokens = torch.tensor([list(prompts[i]) for i in batch], device=device)
        open_rows = set(batch)
        step.begin()
        for _ in range(max_new_tokens):
            logits = step.logits(tokens)
            if not bool(logits.isfinite().all()):
                raise ModelError("logits that are not finite: the model's outputs overflowed; use more bits")
            chosen = logits.argmax(1)
            for row, token in zip(batch, chosen.tolist(), strict=True):
                if row in open_rows:
                    found[row].append(token)
                    if stopped(found[row]):
                        open_rows.discard(row)
            if not open_rows:
                break
            tokens = torch.cat([tokens, chosen[:, None]], dim=1)
        done += len(batch)
        show(done, len(prompts))
    return found


class _Again:
    """Logits of the next token from the whole sequence."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._split = SplitModel(model)

    def begin(self) -> None:
        """Nothing is kept."""

    def logits(self, tokens: Tensor) -> Tensor:
        """[B, V] for tokens [B, L]."""
        return self._split.logits(self._split.hidden_batch(tokens)[:, -1])


class _Cached:
    """Logits of the next token from the tokens that are new and the model's own cache."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._cache: object = None
        self._read = 0
        takes = "logits_to_keep" in inspect.signature(model.forward).parameters
        self._last = {"logits_to_keep": 1} if takes else {}

    def begin(self) -> None:
        """Forget what was read."""
        self._cache, self._read = None, 0

    def logits(self, tokens: Tensor) -> Tensor:
        """[B, V] for tokens [B, L], of which those read before are the beginning."""
        new = tokens[:, self._read :]
        output = self._model(input_ids=new, past_key_values=self._cache, use_cache=True, **self._last)
        self._cache, self._read = output.past_key_values, tokens.shape[1]
        logits: Tensor = output.logits[:, -1]
        return logits.float()


def check_finite(values: Sequence[float], task: str, items: Sequence[str]) -> None:
    """Raise ModelError naming the task and the first item whose value is not finite."""
    for item, value in zip(items, values, strict=True):
        if not math.isfinite(value):
            raise ModelError(
                f"task {task}, item {item}: the log-likelihood is not finite, because the model's outputs overflowed. "
                "Quantization to few bits can break a model like this: use more bits; or, if it happens in full "
                "precision, another model.dtype (float16 overflows first)."
            )
