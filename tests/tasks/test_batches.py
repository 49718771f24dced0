"""Batches: what a device without memory for one makes of it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

import quantbench
from prompts import long_llama
from quantbench.core.errors import ModelError
from quantbench.core.mixing import Mixing
from quantbench.core.out_of_memory import memory_explained, ran_out
from quantbench.tasks.batches import run_batches
from quantbench.tasks.decoding import greedy
from quantbench.tasks.loglikelihood import Continuation, loglikelihoods
from tiny import tiny_tokenizer

CPU = torch.device("cpu")


def no_progress(_done: int, _all: int) -> None:
    """Shown to nobody."""


@contextmanager
def room_for(model: PreTrainedModel, sequences: int) -> Iterator[list[int]]:
    """A device on which the model's blocks hold so many sequences at once; the sizes that were tried."""
    tried: list[int] = []

    def look(_module: torch.nn.Module, args: tuple[Any, ...]) -> None:
        tried.append(len(args[0]))
        if len(args[0]) > sequences:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    handle = model.model.layers[-1].register_forward_pre_hook(look)
    try:
        yield tried
    finally:
        handle.remove()


def prompts(count: int) -> list[tuple[int, ...]]:
    drawn = torch.randint(2, 250, (count, 6), generator=torch.Generator().manual_seed(0))
    return [tuple(row) for row in drawn.tolist()]


def test_a_batch_that_does_not_fit_is_halved_and_so_are_later_ones(caplog: pytest.LogCaptureFixture) -> None:
    tried = []

    def run(batch: list[int]) -> list[int]:
        tried.append(len(batch))
        if len(batch) > 3:
            raise torch.OutOfMemoryError("full")
        return batch

    lengths = [400] * 22 + [2000]
    with caplog.at_level(logging.WARNING, "quantbench"):
        made = list(run_batches(lengths, Mixing.NONE, CPU, run))
    assert [index for batch, _ in made for index in batch] == list(range(23))
    assert all(batch == result for batch, result in made)
    assert tried[:3] == [10, 5, 2]
    assert max(tried[2:]) == 2
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [
        "out of memory on cpu with 10 sequences of 400 tokens"
    ]


def test_a_single_sequence_that_does_not_fit_ends_it_and_so_does_any_other_error() -> None:
    def full(_batch: list[int]) -> None:
        raise torch.OutOfMemoryError("full")

    def wrong(_batch: list[int]) -> None:
        raise RuntimeError("shapes cannot be multiplied")

    with pytest.raises(torch.OutOfMemoryError):
        list(run_batches([5] * 8, Mixing.NONE, CPU, full))
    with pytest.raises(RuntimeError, match="shapes"):
        list(run_batches([5] * 8, Mixing.NONE, CPU, wrong))


def test_log_likelihoods_and_answers_are_the_same_where_little_fits() -> None:
    model = long_llama()
    wanted = [Continuation((*prompt, 7), len(prompt)) for prompt in prompts(9)]

    def both() -> tuple[list[float], list[list[int]]]:
        scores = loglikelihoods(model, wanted, Mixing.NONE, CPU, no_progress)
        answers = greedy(model, prompts(9), 4, lambda found: found[-1] == 0, True, Mixing.NONE, CPU, no_progress)
        return scores, answers

    with torch.no_grad():
        scores, answers = both()
        with room_for(model, 2) as tried:
            few_scores, few_answers = both()
    assert max(tried) == 9
    np.testing.assert_allclose(few_scores, scores, rtol=1e-5)
    assert few_answers == answers


def test_the_allocators_own_errors_are_known() -> None:
    with pytest.raises(RuntimeError) as raised:
        torch.empty(1 << 58)
    assert ran_out(raised.value)
    assert ran_out(MemoryError())
    assert not ran_out(RuntimeError("shapes cannot be multiplied"))
    with (
        pytest.raises(ModelError, match=r"^evaluating x: out of memory on cpu\. What would fit: less\."),
        memory_explained("evaluating x", CPU, "less"),
    ):
        torch.empty(1 << 58)


def test_quantizing_without_memory_for_one_sequence_says_what_would_fit() -> None:
    model = long_llama()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    tokens = torch.randint(2, 250, (4, 16))
    with room_for(model, 0), pytest.raises(ModelError, match=r"shorter than 16 tokens \(length\)"):
        quantbench.quantize(model, tiny_tokenizer(), "gptq", tokens, ["quantizer.weight.group_size=8"])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
