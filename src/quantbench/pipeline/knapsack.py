"""One choice for each item, of least total error, within a total cost (the multiple-choice knapsack problem).

Objective  min over c of sum_i E[i, c_i]  subject to  sum_i C[i, c_i] <= budget
Symbols    E [n, k] float  errors of n items under k choices     C [n, k] int  costs

`exact` is dynamic programming over the costs in units of their greatest common divisor. Where that takes too much
memory, `greedy` starts from the cheapest choices and takes the step of steepest descent of error per cost that still
fits, again and again: along the lower convex hulls these are the solutions of the Lagrangian relaxation, and off them
at most one step from it. Of its result and the uniform choices, the best one is taken.
"""

from __future__ import annotations

import heapq
import math

import torch
from torch import Tensor

MOST_STATES = 50_000_000
"""Most entries of the table of `exact`, one byte each."""


def choose(errors: Tensor, costs: Tensor, budget: int) -> Tensor | None:
    """The choices c int64 [n]; None if even the cheapest ones cost more than the budget."""
    lowest = costs.amin(dim=1)
    room = budget - int(lowest.sum())
    if room < 0:
        return None
    above = costs - lowest[:, None]
    room = min(room, int(above.amax(dim=1).sum()))
    unit = max(1, math.gcd(*set(above.flatten().tolist())))
    if len(errors) * (room // unit + 1) <= MOST_STATES:
        return exact(errors, above // unit, room // unit)
    return min(
        [greedy(errors, above, room), *_uniform(above, room)],
        key=lambda found: float(total(errors, found)),
    )


def exact(errors: Tensor, costs: Tensor, room: int) -> Tensor:
    """The best choices whose costs >= 0 sum to at most room; the least cost of every item is 0."""
    best = torch.zeros(room + 1, dtype=torch.float64)  # least error of the items so far, by what they may cost
    taken = torch.zeros(len(errors), room + 1, dtype=torch.uint8)
    for i, (error, cost) in enumerate(zip(errors.double().tolist(), costs.tolist(), strict=True)):
        options = torch.full((len(cost), room + 1), torch.inf, dtype=torch.float64)
        for choice, (e, c) in enumerate(zip(error, cost, strict=True)):
            if c <= room:
                options[choice, c:] = best[: room + 1 - c] + e
        best, taken[i] = options.min(dim=0)
    chosen = torch.zeros(len(errors), dtype=torch.int64)
    for i in range(len(errors) - 1, -1, -1):
        chosen[i] = int(taken[i, room])
        room -= int(costs[i, chosen[i]])
    return chosen


def greedy(errors: Tensor, costs: Tensor, room: int) -> Tensor:
    """Choices by steepest descent, from the cheapest ones; near the best where no single item matters much."""
    E, C = errors.double().tolist(), costs.tolist()
    chosen = [min((c, e, k) for k, (c, e) in enumerate(zip(*item, strict=True)))[2] for item in zip(C, E, strict=True)]
    steps: list[tuple[float, int, int]] = []

    def push(i: int) -> None:
        now = chosen[i]
        for k in range(len(C[i])):
            gain, price = E[i][now] - E[i][k], C[i][k] - C[i][now]
            if gain > 0 and 0 <= price <= room:
                heapq.heappush(steps, (-gain / max(price, 1e-9), i, now * len(C[i]) + k))

    for i in range(len(E)):
        push(i)
    while steps:
        _, i, step = heapq.heappop(steps)
        before, after = divmod(step, len(C[i]))
        price = C[i][after] - C[i][before]
        if before == chosen[i] and price <= room:
            chosen[i] = after
            room -= price
            push(i)
    return torch.tensor(chosen)


def total(errors: Tensor, chosen: Tensor) -> Tensor:
    """sum_i E[i, c_i], or of the costs."""
    return errors.gather(1, chosen[:, None]).sum()


def _uniform(costs: Tensor, room: int) -> list[Tensor]:
    every = [torch.full((len(costs),), k) for k in range(costs.shape[1])]
    return [choice for choice in every if int(total(costs, choice)) <= room]
