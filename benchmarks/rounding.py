"""Times rounding the seven linear layers of a SmolLM2-135M block, method beside method, on one thread.

    python benchmarks/rounding.py

CPU seconds are the least of `REPEATS` runs; "error" is the sum over the layers of tr(dW H dW^T), relative to nearest.
The weights are random and the inputs correlated: enough to compare costs, not accuracies of real models.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

from quantbench.formats.int import IntFormat
from quantbench.formats.quantize import quantize
from quantbench.pipeline.stats import LinearStats
from quantbench.rounding.gptq import Gptq
from quantbench.rounding.hessian import output_error
from quantbench.rounding.nearest import Nearest
from quantbench.transforms.awq import AwqClip, AwqScale

# Groups of layers that read the same input: (input width, output widths).
BLOCK = {"q, k, v": (576, (576, 192, 192)), "o": (576, (576,)), "gate, up": (576, (1536, 1536)), "down": (1536, (576,))}
TOKENS = 4096
REPEATS = 3

Group = tuple[LinearStats, list[Tensor]]
Method = Callable[[Group, IntFormat], list[Tensor]]


def make_group(in_features: int, out_features: tuple[int, ...]) -> Group:
    """Statistics of correlated inputs, and weights that read them."""
    generator = torch.Generator().manual_seed(in_features)
    mixing = torch.randn(in_features, in_features, generator=generator) / in_features**0.5
    x = torch.randn(TOKENS, in_features, generator=generator) @ mixing
    stats = LinearStats(n_tokens=TOKENS, hessian=2 / TOKENS * x.T @ x, mean_abs=x.abs().mean(0))
    return stats, [torch.randn(rows, in_features, generator=generator) / in_features**0.5 for rows in out_features]


def rounded_by(rounding: Nearest | Gptq) -> Method:
    """The method that rounds each weight of a group by itself."""
    return lambda group, grid: [rounding.round(w, group[0], grid).weight.dequantize() for w in group[1]]


def awq(group: Group, format: IntFormat) -> list[Tensor]:
    """Scale and clip, then round to nearest."""
    stats, weights = group
    scale = AwqScale().scale(weights, stats, format)
    scaled = stats.rescaled(scale)
    return [quantize(AwqClip().clip(w * scale, scaled, format), format).dequantize() / scale for w in weights]


def measure(method: Method, groups: list[Group], format: IntFormat) -> tuple[float, float]:
    """CPU seconds for all groups, and their summed output error."""
    seconds, error = [], 0.0
    for _ in range(REPEATS):
        start = time.process_time()
        results = [method(group, format) for group in groups]
        seconds.append(time.process_time() - start)
    for (stats, weights), rounded in zip(groups, results, strict=True):
        for before, after in zip(weights, rounded, strict=True):
            error += output_error(before - after, stats.require("hessian"))
    return min(seconds), error


def main() -> None:
    torch.set_num_threads(1)
    groups = [make_group(*sizes) for sizes in BLOCK.values()]
    asymmetric = IntFormat(bits=4, group_size=64, symmetric=False)
    searched = IntFormat(bits=4, group_size=64, symmetric=False, range="mse")
    rows: list[tuple[str, Method, IntFormat]] = [
        ("nearest", rounded_by(Nearest()), asymmetric),
        ("nearest, range=mse", rounded_by(Nearest()), searched),
        ("gptq", rounded_by(Gptq()), asymmetric),
        ("gptq act_order", rounded_by(Gptq(act_order=True)), asymmetric),
        ("gptq act_order static", rounded_by(Gptq(act_order=True, static_groups=True)), asymmetric),
        ("awq scale + clip", awq, asymmetric),
    ]
    print(f"SmolLM2-135M block, 4 bits, groups of 64, {torch.get_num_threads()} thread, torch {torch.__version__}")
    print(f"{'method':<24}{'CPU s':>8}{'x nearest':>11}{'error':>8}")
    base: tuple[float, float] | None = None
    for name, method, grid in rows:
        seconds, error = measure(method, groups, grid)
        base = base or (seconds, error)
        print(f"{name:<24}{seconds:>8.3f}{seconds / base[0]:>11.1f}{error / base[1]:>8.3f}")


if __name__ == "__main__":
    main()
