"""What three differences from the authors' code cost or gain, on small random layers. Prints ratios, theirs to ours.

    python benchmarks/authors_ways.py

1. GPTQ, dynamic groups smaller than the block of columns: the authors' code fits them to the weight as it was when the
   block began; ours to the weight as updated by all columns before.
2. SpQR, leave-one-out errors on a format with integer zero points: with zero points that are not rounded, or as stored.
3. AWQ, the exponent of the scale of an MLP's input: the best for the output of the MLP, or for those of its two layers.

1 and 2: tr(dW H dW^T) of weights [128, 256], 1024 correlated inputs; 3: squared error of the MLP's output, width 64.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import silu

from quantbench.core.input_stats import LinearStats, output_error
from quantbench.formats.base import Format
from quantbench.formats.int import IntFormat
from quantbench.formats.quantize import quantize
from quantbench.rounding import gptq, spqr
from quantbench.rounding.gptq import Columns, Gptq
from quantbench.rounding.groups import Groups
from quantbench.rounding.spqr import Spqr, saved_errors
from quantbench.transforms.awq import AwqScale

SEEDS = range(4)


def inputs(tokens: int, width: int) -> Tensor:
    x: Tensor = torch.randn(tokens, width) @ torch.randn(width, width) / width**0.5
    return x


def stats(x: Tensor) -> LinearStats:
    return LinearStats(n_tokens=len(x), hessian=2 / len(x) * x.T @ x, mean_abs=x.abs().mean(0))


def fitted_when_the_block_began(columns: Columns, groups: Groups, block_size: int) -> Tensor:
    """GPTQ's step 4 as the authors' code has it."""
    W, U, sizes = columns.W, columns.U, Counter(groups.of)
    codes = torch.empty(W.shape, dtype=torch.uint8)
    for start in range(0, len(W), block_size):
        end = min(start + block_size, len(W))
        E = torch.empty_like(W[start:end])
        for i in range(start, end):
            if groups.of[i] not in groups.params:
                group = torch.arange(i, i + sizes[groups.of[i]])
                groups.params[groups.of[i]] = groups.fit(W[group].t(), group)
            w = (W[i] - E[: i - start].t() @ U[start:i, i]).unsqueeze(1)
            code, q = groups.column(i, w)
            codes[i], E[i - start] = code.squeeze(1), (w - q).squeeze(1) / U[i, i]
        W[end:] -= U[start:end, end:].t() @ E
    return codes


def unrounded(W: Tensor, u: Tensor, format: Format) -> Tensor:
    assert isinstance(format, IntFormat)
    return saved_errors(W, u, dataclasses.replace(format, zero_rounding=False))


def loss(rounding: Gptq | Spqr, grid: IntFormat) -> tuple[float, float]:
    """Error and bits, summed over seeds."""
    total, bits = 0.0, 0.0
    for seed in SEEDS:
        torch.manual_seed(seed)
        weight, found = torch.randn(128, 256), stats(inputs(1024, 256))
        rounded = rounding.round(weight, found, grid).weight
        total += output_error(rounded.dequantize() - weight, found.require("hessian"))
        bits += rounded.bits_per_weight()
    return total, bits


def replaced(
    module: object, name: str, other: object, measure: Callable[[], tuple[float, float]]
) -> tuple[float, float]:
    """What is measured with another function in a module's place."""
    own = getattr(module, name)
    setattr(module, name, other)
    try:
        return measure()
    finally:
        setattr(module, name, own)


def awq(grid: IntFormat) -> float:
    ours = theirs = 0.0
    for seed in SEEDS:
        torch.manual_seed(seed)
        x = inputs(512, 64)
        x[:, :4] *= 8
        gate, up, down = torch.randn(172, 64) / 8, torch.randn(172, 64) / 8, torch.randn(64, 172) / 172**0.5
        found = stats(x)
        mean = found.require("mean_abs")

        def output(gate: Tensor, up: Tensor, x: Tensor = x, down: Tensor = down) -> Tensor:
            return (silu(x @ gate.T) * (x @ up.T)) @ down.T

        def error(s: Tensor, gate: Tensor = gate, up: Tensor = up) -> float:
            rounded = [quantize(w * s, grid).dequantize() / s for w in (gate, up)]
            return float((output(*rounded) - output(gate, up)).square().mean())

        scales = [mean.pow(k / 20).clamp(min=1e-4) for k in range(20)]
        theirs += min(error(s / (s.max() * s.min()).sqrt()) for s in scales)
        ours += error(AwqScale().scale([gate, up], found, [grid, grid]))
    return theirs / ours


def main() -> None:
    torch.set_num_threads(1)
    print("1. GPTQ, dynamic groups in blocks of 128: error")
    for bits in (4, 3, 2):
        for group in (16, 32, 64):
            grid = IntFormat(bits=bits, group_size=group, symmetric=False)

            def measure(grid: IntFormat = grid) -> tuple[float, float]:
                return loss(Gptq(), grid)

            theirs = replaced(gptq, "_round_columns", fitted_when_the_block_began, measure)[0]
            print(f"   {bits} bits, groups of {group}: {theirs / measure()[0]:.3f}")
    print("2. SpQR, groups of 16: error, effective bits")
    for bits in (4, 3, 2):
        grid = IntFormat(bits=bits, group_size=16, symmetric=False)

        def both(grid: IntFormat = grid) -> tuple[float, float]:
            return loss(Spqr(), grid)

        (theirs, their_bits), (ours, our_bits) = replaced(spqr, "saved_errors", unrounded, both), both()
        print(f"   {bits} bits: {theirs / ours:.3f}, {their_bits / our_bits:.3f}")
    print("3. AWQ, groups of 32: error")
    for bits in (4, 3, 2):
        print(f"   {bits} bits: {awq(IntFormat(bits=bits, group_size=32, symmetric=False)):.3f}")


if __name__ == "__main__":
    main()
