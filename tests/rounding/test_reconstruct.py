"""The training loop on a linear "block" y = W x, where everything is known."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from helpers_math import random
from quantbench.rounding.reconstruct import Candidate, Schedule, SignSgd, objective, reconstruct


class Linear:
    """What reconstruct needs of a BlockContext, noting the order of sequences that gradients are taken of."""

    def __init__(self, sequences: int = 5) -> None:
        self.weight = random(3, 4, seed=0)
        self.inputs = [random(1, 6, 4, seed=i + 1) for i in range(sequences)]
        self.targets = [x @ self.weight.T for x in self.inputs]
        self.seen: list[int] = []

    def output(self, index: int, weights: dict[str, Tensor], scales: dict[int, Tensor]) -> Tensor:
        if torch.is_grad_enabled():
            self.seen.append(index)
        return self.inputs[index] @ weights["w"].T


def learn(block: Any, make: Any, parameter: Tensor, lr: float, **schedule: Any) -> dict[str, int]:
    given = {"steps": 30, "batch": 2, "seed": 0} | schedule
    return reconstruct(block, make, torch.optim.Adam([parameter], lr=lr), Schedule(**given))


def started() -> Tensor:
    return random(3, 4, seed=9).requires_grad_()


def test_it_learns() -> None:
    block: Any = Linear()
    w = started()

    def make() -> Candidate:
        return Candidate({"w": w})

    before = objective(block, make)
    assert learn(block, make, w, 0.1) == {}
    assert objective(block, make) < 0.2 * before
    outputs = torch.cat(block.inputs) @ w.detach().T - torch.cat(block.targets)
    assert objective(block, make) == pytest.approx(float(outputs.square().mean()), rel=1e-5)


def test_the_result_is_never_worse_than_the_start() -> None:
    block: Any = Linear()
    w = (block.weight + 1e-3).requires_grad_()
    start = w.detach().clone()
    assert learn(block, lambda: Candidate({"w": w}), w, 1e3) == {"not_improved": 1}
    assert torch.equal(w, start)


@pytest.mark.parametrize("bad", [float("nan"), 1e30])
def test_a_loss_that_is_not_finite_ends_learning_with_the_best(bad: float) -> None:
    block: Any = Linear()
    w = started()
    calls = 0

    def make() -> Candidate:
        nonlocal calls
        calls += torch.is_grad_enabled()
        return Candidate({"w": w * bad if calls > 20 else w})

    before = objective(block, make)
    assert learn(block, make, w, 0.1) == {"stopped_early": 1}
    assert calls == 21
    assert bool(w.isfinite().all())
    calls = 0
    assert objective(block, make) < before


def test_a_start_that_is_not_finite_is_refused() -> None:
    block: Any = Linear()
    w = started()
    with pytest.raises(ValueError, match="NaN or infinity before anything was learned"):
        learn(block, lambda: Candidate({"w": w * float("inf")}), w, 0.1)


def test_every_sequence_comes_once_before_any_comes_again_in_an_order_of_the_seed() -> None:
    orders = []
    for seed in (0, 0, 1):
        block: Any = Linear()
        w = started()
        learn(block, lambda w=w: Candidate({"w": w}), w, 0.1, steps=5, batch=2, seed=seed)
        assert sorted(block.seen[:5]) == sorted(block.seen[5:]) == list(range(5))
        orders.append(block.seen)
    assert orders[0] == orders[1] != orders[2]


def test_steps_of_sign_descent_shrink_linearly() -> None:
    block: Any = Linear(sequences=1)
    w = torch.full((3, 4), 100.0).requires_grad_()  # far away: the sign of every gradient stays
    optimizer = SignSgd([w], lr=0.1)
    reconstruct(block, lambda: Candidate({"w": w}), optimizer, Schedule(steps=10, batch=8, seed=0, decay=True))
    moved = (w.detach() - 100).abs()
    assert float(moved.max()) == pytest.approx(0.1 * sum(1 - t / 10 for t in range(10)), rel=1e-4)


def test_no_steps_change_nothing_and_measure_nothing() -> None:
    block: Any = Linear()
    block.targets = []
    w = started()
    start = w.detach().clone()
    assert learn(block, lambda: Candidate({"w": w}), w, 0.1, steps=0) == {}
    assert torch.equal(w, start)
