"""What the search for a range costs beside rounding, and that the quick ones find what trying every range finds.

    python benchmarks/range_search.py

For the layers of a SmolLM2-135M block, on one thread, the least CPU time of REPEATS runs, in turn: "kernel" is
`smallest_error` with the compiled kernel, "torch" without it, "every" is `every_range`, all three less the time of
ranges from smallest to largest. "gptq" is GPTQ's rounding with such ranges, layers that read one input sharing its
factorization, and "loop" is gptq without factorizing; "before" is gptq as a loop over columns in torch, with a
factorization for each layer. "kernel/..": the search by the kernel as a share of these. "compared" is the share of
groups in which the kernel leaves several ranges; "same" whether all three found the same. Weights are random, normally
distributed or with heavy tails (Student's t with 4 degrees of freedom).
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from quantbench.core.input_stats import LinearStats
from quantbench.formats import int as int_format
from quantbench.formats import range_search
from quantbench.formats.grid_params import GridParams
from quantbench.formats.int import IntFormat
from quantbench.formats.range_kernel import ranges_left
from quantbench.rounding import gptq
from quantbench.rounding.gptq import Gptq
from quantbench.rounding.prepared import Prepared

BLOCK = ((576, (576, 192, 192)), (576, (576,)), (576, (1536, 1536)), (1536, (576,)))
"""Inputs of a block: their width, and the heights of the weights that read them."""
TOKENS, REPEATS = 4096, 7

Inputs = list[tuple[Tensor, list[Tensor]]]


def problem(kind: str) -> Inputs:
    """H and the weights of each input."""
    torch.manual_seed(0)
    draw = torch.distributions.StudentT(4.0).sample if kind == "heavy tails" else torch.randn
    return [(hessian(width), [draw((out, width)) / width**0.5 for out in outs]) for width, outs in BLOCK]


def hessian(width: int) -> Tensor:
    x: Tensor = torch.randn(TOKENS, width) @ torch.randn(width, width) / width**0.5
    return 2 / TOKENS * x.T @ x


def seconds(*works: Callable[[], Any]) -> list[float]:
    """The least CPU seconds of each, all in turn."""
    least = [float("inf")] * len(works)
    for _ in range(REPEATS):
        for index, work in enumerate(works):
            start = time.process_time()
            work()
            least[index] = min(least[index], time.process_time() - start)
    return least


def ranges(inputs: Inputs, grid: IntFormat) -> list[GridParams]:
    return [grid.params(weight) for _, weights in inputs for weight in weights]


def by_torch(inputs: Inputs, grid: IntFormat) -> list[GridParams]:
    with mock.patch.object(range_search, "ranges_left", return_value=None):
        return ranges(inputs, grid)


def every(inputs: Inputs, grid: IntFormat) -> list[GridParams]:
    with mock.patch.object(int_format, "smallest_error", range_search.every_range):
        return ranges(inputs, grid)


def rounded(inputs: Inputs, grid: IntFormat) -> None:
    rounding = Gptq(order="activation", static_groups=True)
    for H, weights in inputs:
        stats = LinearStats(n_tokens=TOKENS, hessian=H)
        for weight in weights:
            rounding.round(weight, stats, grid)


def rounded_before(inputs: Inputs, grid: IntFormat) -> None:
    with mock.patch.object(gptq, "compiled_here", return_value=False):
        for H, weights in inputs:
            for weight in weights:
                rounded([(H, [weight])], grid)


def factorized(inputs: Inputs, grid: IntFormat) -> None:
    for H, _ in inputs:
        Prepared.of(H, "activation", int(grid.group_size), 0.01)


def compared(inputs: Inputs, grid: IntFormat) -> float:
    """The share of groups in which the kernel leaves several ranges."""
    several, groups = 0, 0

    def counted(*given: Any) -> Any:
        nonlocal several, groups
        found = ranges_left(*given)
        assert found is not None
        several, groups = several + int((found[0] < 0).sum()), groups + len(found[0])
        return found

    with mock.patch.object(range_search, "ranges_left", counted):
        ranges(inputs, grid)
    return several / groups


def measure(kind: str, inputs: Inputs, **options: Any) -> None:
    """Prints a line."""
    plain, grid = IntFormat(**options), IntFormat(range="mse", **options)
    found = [make(inputs, grid) for make in (ranges, by_torch, every)]
    same = all(
        torch.equal(one.scale, other.scale) for others in found[1:] for one, other in zip(found[0], others, strict=True)
    )
    minmax, *searches, gptq_s, before, factors = seconds(
        lambda: ranges(inputs, plain),
        *(lambda make=make: make(inputs, grid) for make in (ranges, by_torch, every)),
        *(lambda work=work: work(inputs, plain) for work in (rounded, rounded_before, factorized)),
    )
    kernel, torch_s, every_s = (search - minmax for search in searches)
    loop = gptq_s - factors
    name = f"int{grid.bits} {'sym' if grid.symmetric else 'asym'} {grid.group_size}"
    print(f"{kind:<12}{name:<14}", end="")
    print("".join(f"{value:>8.3f}" for value in (kernel, torch_s, every_s, gptq_s, loop, before)), end="")
    print("".join(f"{kernel / value:>14.2f}" for value in (torch_s, gptq_s, loop, before)), end="")
    print(f"{compared(inputs, grid):>10.4f}{'yes' if same else 'NO':>6}", flush=True)


def main() -> None:
    torch.set_num_threads(1)
    print(f"SmolLM2-135M block, {torch.get_num_threads()} thread, torch {torch.__version__}, CPU seconds")
    columns = ("kernel", "torch", "every", "gptq", "loop", "before")
    shares = ("kernel/torch", "kernel/gptq", "kernel/loop", "kernel/before")
    print(f"{'weights':<12}{'grid':<14}{''.join(f'{name:>8}' for name in columns)}", end="")
    print(f"{''.join(f'{name:>14}' for name in shares)}{'compared':>10}{'same':>6}")
    for kind in ("normal", "heavy tails"):
        inputs = problem(kind)
        for bits, group in itertools.product((4, 3), (64, 128)):
            measure(kind, inputs, bits=bits, group_size=group, symmetric=False)
            symmetric: dict[str, Any] = {"symmetric": True, "scale_convention": "full_range"}
            measure(kind, inputs, bits=bits, group_size=group, **symmetric)


if __name__ == "__main__":
    main()
