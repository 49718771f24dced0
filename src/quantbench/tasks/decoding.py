"""Greedy continuations of token sequences."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from quantbench.core.errors import ModelError
from quantbench.core.finite import all_finite
from quantbench.core.mixing import Mixing
from quantbench.core.progress import ProgressCallback
from quantbench.models.head import head_in_place, head_of, wide_head
from quantbench.tasks.batches import run_batches
from quantbench.tasks.logits import SplitModel

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def greedy(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    stopped: Callable[[Sequence[int]], bool],
    cached: bool,
    mixing: Mixing,
    device: torch.device,
    progress: ProgressCallback,
) -> list[list[int]]:
    """The most likely continuation of each prompt, token by token, until `stopped` says so or at max_new_tokens.

    cached  keep keys and values of what was read. False: read everything again for each token, which is the only right
            way where keys and values are quantized at run time, since that is computed on whole sequences
    """
    found: list[list[int]] = [[] for _ in prompts]
    step = _Cached(model) if cached else _Uncached(model)
    done = 0

    def run(batch: list[int]) -> list[list[int]]:
        tokens = torch.tensor([list(prompts[i]) for i in batch], device=device)
        answers: list[list[int]] = [[] for _ in batch]
        open_rows = set(range(len(batch)))
        step.begin()
        for _ in range(max_new_tokens):
            logits = step.logits(tokens)
            if not all_finite(logits):
                raise ModelError("logits that are not finite: the model's outputs overflowed; use more bits")
            chosen = logits.argmax(1)
            for row, token in enumerate(chosen.tolist()):
                if row in open_rows:
                    answers[row].append(token)
                    if stopped(answers[row]):
                        open_rows.discard(row)
            if not open_rows:
                break
            tokens = torch.cat([tokens, chosen[:, None]], dim=1)
        return answers

    lengths = [len(prompt) + max_new_tokens for prompt in prompts]
    for batch, answers in run_batches(lengths, mixing, device, run):
        for prompt, answer in zip(batch, answers, strict=True):
            found[prompt] = answer
        done += len(batch)
        progress(done, len(prompts))
    return found


class _Uncached:
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
        self._head = wide_head(head_of(model))
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
        with head_in_place(self._model, self._head):
            output = self._model(input_ids=new, past_key_values=self._cache, use_cache=True, **self._last)
        self._cache, self._read = output.past_key_values, tokens.shape[1]
        logits: Tensor = output.logits[:, -1]
        return logits.float()
