"""What the search for a range costs beside rounding, and that the quick one finds what trying every range finds.

    python benchmarks/range_search.py

For the layers of a SmolLM2-135M block, on one thread, the least CPU time of REPEATS runs: "quick" is `smallest_error`,
"every" is `every_range`, "gptq" GPTQ's rounding with ranges from smallest to largest. "powers" is how often the quick
one takes the power of 2.4 of each error, of 80 ranges; "same" whether both found the same. Weights are random, normally
distributed or with heavy tails (Student's t with 4 degrees of freedom).
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from quantbench.core.input_stats import LinearStats
from quantbench.formats import int as int_format
from quantbench.formats import range_search
from quantbench.formats.grid import IntGrid
from quantbench.formats.grid_params import GridParams
from quantbench.formats.int import IntFormat
from quantbench.rounding.gptq import Gptq

T = TypeVar("T")
LAYERS = ((576, 576), (192, 576), (192, 576), (576, 576), (1536, 576), (1536, 576), (576, 1536))  # [out, in]
TOKENS, REPEATS = 4096, 3


def weights(kind: str) -> list[Tensor]:
    torch.manual_seed(0)
    draw = torch.distributions.StudentT(4.0).sample if kind == "heavy tails" else torch.randn
    return [draw((out, width)) / width**0.5 for out, width in LAYERS]


def stats(width: int) -> LinearStats:
    x = torch.randn(TOKENS, width) @ torch.randn(width, width) / width**0.5
    return LinearStats(n_tokens=TOKENS, hessian=2 / TOKENS * x.T @ x)


def timed(work: Callable[[], list[T]]) -> tuple[float, list[T]]:
    """The least CPU seconds, and what was made."""
    seconds = []
    for _ in range(REPEATS):
        start = time.process_time()
        made = work()
        seconds.append(time.process_time() - start)
    return min(seconds), made


def powers(layers: list[Tensor], grid: IntFormat) -> float:
    """Powers of 2.4 taken by the quick search, for each weight."""
    error, taken = range_search._error, [0]

    def counted(levels: IntGrid, values: Tensor, params: GridParams, importance: Tensor | None) -> Tensor:
        taken[0] += values.numel()
        return error(levels, values, params, importance)

    setattr(range_search, "_error", counted)  # noqa: B010 - watched
    try:
        for weight in layers:
            grid.params(weight)
    finally:
        setattr(range_search, "_error", error)  # noqa: B010
    return taken[0] / sum(weight.numel() for weight in layers)


def ranges(layers: list[Tensor], grid: IntFormat) -> list[GridParams]:
    return [grid.params(weight) for weight in layers]


def measure(kind: str, layers: list[Tensor], inputs: dict[int, LinearStats], **options: Any) -> None:
    """Prints a line."""
    plain, grid = IntFormat(**options), IntFormat(range="mse", **options)
    rounding = Gptq(order="activation", static_groups=True)
    quick, found = timed(lambda: ranges(layers, grid))
    gptq, _ = timed(lambda: [rounding.round(w, inputs[w.shape[1]], plain) for w in layers])
    search = range_search.smallest_error
    patch(range_search.every_range)
    try:
        every, expected = timed(lambda: ranges(layers, grid))
    finally:
        patch(search)
    same = all(torch.equal(a.scale, b.scale) for a, b in zip(found, expected, strict=True))
    name = f"int{grid.bits} {'sym' if grid.symmetric else 'asym'} {grid.group_size}"
    print(f"{kind:<12}{name:<18}{powers(layers, grid):>7.2f}{quick:>9.3f}{every:>9.3f}{gptq:>8.3f}", end="")
    print(f"{quick / every:>12.3f}{quick / gptq:>11.3f}{'yes' if same else 'NO':>6}", flush=True)


def main() -> None:
    torch.set_num_threads(1)
    inputs = {width: stats(width) for width in {width for _, width in LAYERS}}
    print(f"SmolLM2-135M block, {torch.get_num_threads()} thread, torch {torch.__version__}")
    print(f"{'weights':<12}{'grid':<18}{'powers':>7}{'quick s':>9}{'every s':>9}{'gptq s':>8}", end="")
    print(f"{'quick/every':>12}{'quick/gptq':>11}{'same':>6}")
    for kind in ("normal", "heavy tails"):
        layers = weights(kind)
        for bits, group in itertools.product((4, 3), (64, 128)):
            measure(kind, layers, inputs, bits=bits, group_size=group, symmetric=False)
            symmetric: dict[str, Any] = {"symmetric": True, "scale_convention": "full_range"}
            measure(kind, layers, inputs, bits=bits, group_size=group, **symmetric)


def patch(search: Any) -> None:
    """Let integer formats search with another function."""
    setattr(int_format, "smallest_error", search)  # noqa: B010


if __name__ == "__main__":
    main()
