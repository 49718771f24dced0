"""The training loop of methods that learn how to quantize a block.

Objective  min over theta of 1/N sum_i mean |f(X_i; theta) - Y_i|^2: what the quantized block makes of calibration
           sequence X_i, compared with what the full-precision block makes of it, Y_i

Steps
 1. The objective is measured on all sequences before the first step, and at a few steps evenly spaced, the last among
    them; the best theta measured is the result. So it is never worse than the start.
 2. A step draws a minibatch (every sequence once before any comes again), sums the gradients over its sequences one by
    one, and lets the optimizer act. The weights are quantized once a step, not once a sequence: gradients are summed at
    the quantized weights, and go through the quantizer once.
 3. Fewer steps than the method usually takes are told (fallback "fewer_steps").
 4. If a loss or a gradient is not finite, learning stops and the best is kept (fallback "stopped_early").
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from quantbench.core.finite import all_finite
from quantbench.core.lazy import lazy_module
from quantbench.formats.quantized_weight import QuantizedWeight
from quantbench.rounding.base import BlockProblem, Rounded

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")

CHECKS = 5
"""How often the objective is measured on all sequences after the start."""


@dataclass(frozen=True)
class Candidate:
    """What a block is tried with: quantized weights [out, in] by name, and scales [in] of the inputs of groups.

    The weights of a group whose input is divided by a scale are already multiplied by it.
    """

    weights: dict[str, Tensor]
    scales: dict[int, Tensor] = field(default_factory=dict)

    def tensors(self) -> list[Tensor]:
        """All of them, in a fixed order."""
        return [*self.weights.values(), *self.scales.values()]

    def with_tensors(self, tensors: Sequence[Tensor]) -> Candidate:
        """Others in their places."""
        count = len(self.weights)
        return Candidate(
            dict(zip(self.weights, tensors[:count], strict=True)), dict(zip(self.scales, tensors[count:], strict=True))
        )


@dataclass(frozen=True)
class Schedule:
    """How long to learn: steps of `batch` sequences in an order drawn with `seed`.

    decay: the learning rate falls linearly to zero; otherwise it stays.
    usual: the steps that the method's authors take, or its default; fewer are told (fallback "fewer_steps").
    """

    steps: int
    batch: int
    seed: int
    decay: bool = False
    usual: int = 0


class Optimizer(Protocol):
    """What `reconstruct` uses of torch's optimizers: groups with "params" and a learning rate "lr"."""

    param_groups: list[dict[str, Any]]

    def step(self) -> object:
        """Change the parameters by their gradients."""
        ...


class SignSgd:
    """Every parameter moves by the learning rate against the sign of its gradient."""

    def __init__(self, parameters: Sequence[Tensor], lr: float) -> None:
        self.param_groups: list[dict[str, Any]] = [{"params": list(parameters), "lr": lr}]

    def step(self) -> None:
        """Move."""
        with torch.no_grad():
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter.sub_(parameter.grad.sign(), alpha=group["lr"])


def reconstruct(
    block: BlockProblem,
    make: Callable[[], Candidate],
    optimizer: Optimizer,
    schedule: Schedule,
    constrain: Callable[[], None] = lambda: None,
) -> dict[str, int]:
    """Learn the optimizer's parameters, float32, in place; the fallbacks, where learning gave way.

    make: the candidate that the parameters stand for, differentiable in them. constrain: keeps them in their domain.
    Raises ValueError if the objective is not finite at the start.
    """
    fallbacks = {"fewer_steps": 1} if schedule.steps < schedule.usual else {}
    if not schedule.steps:
        return fallbacks
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    rates = [group["lr"] for group in optimizer.param_groups]
    start = least = objective(block, make)
    if not math.isfinite(start):
        raise ValueError("the block's output holds NaN or infinity before anything was learned")
    best = [parameter.detach().clone() for parameter in parameters]
    checks = {schedule.steps * (k + 1) // CHECKS for k in range(CHECKS)}
    for step, batch in enumerate(_batches(schedule, len(block.inputs))):
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * (1 - step / schedule.steps) if schedule.decay else rate
        if not _set_gradients(block, make, parameters, batch):
            fallbacks["stopped_early"] = 1
            break
        optimizer.step()
        with torch.no_grad():
            constrain()
        if step + 1 in checks and (reached := objective(block, make)) < least:
            least = reached
            best = [parameter.detach().clone() for parameter in parameters]
    with torch.no_grad():
        for parameter, value in zip(parameters, best, strict=True):
            parameter.copy_(value)
    if least == start:
        fallbacks["not_improved"] = 1
    return fallbacks


def with_fallbacks(weights: dict[str, QuantizedWeight], fallbacks: dict[str, int]) -> dict[str, Rounded]:
    """The weights of a block; what gave way is counted once for the block, with its first weight."""
    first = next(iter(weights))
    return {name: Rounded(weight, fallbacks if name == first else {}) for name, weight in weights.items()}


def objective(block: BlockProblem, make: Callable[[], Candidate]) -> float:
    """The mean squared error of the block's output over all calibration sequences."""
    with torch.no_grad():
        candidate = make()
        errors = [_squared_error(block, index, candidate).double() for index in range(len(block.inputs))]
    return float(torch.stack(errors).sum()) / sum(target.numel() for target in block.targets)


def _squared_error(block: BlockProblem, index: int, candidate: Candidate) -> Tensor:
    output = block.output(index, candidate.weights, candidate.scales)
    target = block.targets[index].to(output)  # it may have been kept in a file, elsewhere
    return (output.float() - target.float()).square().sum()


def _batches(schedule: Schedule, sequences: int) -> Iterator[list[int]]:
    generator = torch.Generator().manual_seed(schedule.seed)
    waiting: list[int] = []
    size = min(schedule.batch, sequences)
    for _ in range(schedule.steps):
        while len(waiting) < size:
            waiting += torch.randperm(sequences, generator=generator).tolist()
        yield waiting[:size]
        waiting = waiting[size:]


def _set_gradients(
    block: BlockProblem, make: Callable[[], Candidate], parameters: list[Tensor], batch: list[int]
) -> bool:
    """Step 2: the gradient of the batch's mean squared error; False if it is not finite.

    The sum is taken before the mean, whose gradients would be too small for float16.
    """
    candidate = make()
    outer = candidate.tensors()
    inner = [tensor.detach().requires_grad_() for tensor in outer]
    given = candidate.with_tensors(inner)
    sums = [torch.zeros_like(tensor) for tensor in inner]
    finite = True
    for index in batch:
        error = _squared_error(block, index, given)
        finite &= math.isfinite(float(error.detach()))
        for total, part in zip(sums, torch.autograd.grad(error, inner, materialize_grads=True), strict=True):
            total.add_(part)
    elements = sum(block.targets[index].numel() for index in batch)
    learned = [
        (tensor, total.div_(elements)) for tensor, total in zip(outer, sums, strict=True) if tensor.requires_grad
    ]
    gradients = torch.autograd.grad(
        [tensor for tensor, _ in learned], parameters, [total for _, total in learned], materialize_grads=True
    )
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    return finite and all(map(all_finite, gradients))
