"""Times every way of rounding, method beside method in one process, on one thread.

    python benchmarks/rounding.py

1. The seven linear layers of a SmolLM2-135M block, each method with the options of its recipe and the format it is made
   for. "error" is the sum over the layers of tr(dW H dW^T) relative to nearest on the same format with its whole range,
   so that different formats can stand side by side; "x nearest" is the time relative to nearest on 4-bit integers.
2. Methods that learn take a whole block, here one of width 64 with 20 steps; "error" is that of the logits.

CPU seconds are the least of up to REPEATS runs, fewer where one takes long. The weights are random and the inputs
correlated: enough to compare costs, not accuracies of real models.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from quantbench.config.composer import compose_cells
from quantbench.core.build import build
from quantbench.core.input_stats import LinearStats, output_error
from quantbench.formats.base import Format
from quantbench.formats.quantize import quantize
from quantbench.models.handle import ModelHandle
from quantbench.pipeline.recipe import Recipe
from quantbench.pipeline.walker import quantize_model
from quantbench.rounding.base import Rounding
from quantbench.transforms.awq import AwqClip, AwqScale

# Groups of layers that read the same input: (input width, output widths).
BLOCK = {"q, k, v": (576, (576, 192, 192)), "o": (576, (576,)), "gate, up": (576, (1536, 1536)), "down": (1536, (576,))}
TOKENS, ROWS = 4096, 512
REPEATS, PATIENCE = 3, 3.0  # no further run after so many CPU seconds

INT4 = ("format@quantizer.weight=int", "quantizer.weight.group_size=64")
METHODS: dict[str, tuple[str, ...]] = {
    "nearest": ("rtn", *INT4),
    "nearest, range=mse": ("rtn", *INT4, "quantizer.weight.range=mse"),
    "gptq": ("gptq", *INT4, "quantizer.rounding.order=natural", "quantizer.rounding.static_groups=false"),
    "gptq activation order": (
        "gptq",
        *INT4,
        "quantizer.rounding.order=activation",
        "quantizer.rounding.static_groups=false",
    ),
    "gptq activation order static": (
        "gptq",
        *INT4,
        "quantizer.rounding.order=activation",
        "quantizer.rounding.static_groups=true",
    ),
    "gptq group-aware order": (
        "gptq",
        *INT4,
        "quantizer.rounding.order=group_aware",
        "quantizer.rounding.static_groups=false",
    ),
    "gptq, range=mse": ("gptq", *INT4, "quantizer.weight.range=mse"),
    "awq scale + clip": ("rtn", *INT4),
    "ldlq": ("rtn", *INT4, "rounding@quantizer.rounding=ldlq"),
    "ldlq, 2 greedy passes": (
        "rtn",
        *INT4,
        "rounding@quantizer.rounding=ldlq",
        "quantizer.rounding.greedy_passes=2",
    ),
    "quip": ("quip",),
    "spqr": ("spqr",),
    "hqq": ("hqq",),
    "easyquant": ("easyquant",),
    "slim_llm": ("slim_llm",),
    "lorc on nearest": ("zeroquant_lorc",),
    "lorc on gptq": ("zeroquant_lorc", "rounding@quantizer.rounding.inner=gptq"),
}
LEARNED = ("rtn", "gptq", "omniquant", "signround", "zeroquant_lkd")

Group = tuple[LinearStats, list[Tensor]]
Method = Callable[[Group], list[Tensor]]


def recipe(name: str, *overrides: str, options: dict[str, Any] | None = None) -> Recipe:
    """A shipped recipe with overrides of the command line, and with options of its rounding where it has them."""
    spec = compose_cells([f"quantizer={name}", *overrides])[0].plain["quantizer"]
    spec["rounding"] |= {key: value for key, value in (options or {}).items() if key in spec["rounding"]}
    return build(spec, Recipe, "quantizer")


def make_group(in_features: int, out_features: tuple[int, ...]) -> Group:
    """Statistics of correlated inputs, and weights that read them."""
    generator = torch.Generator().manual_seed(in_features)
    mixing = torch.randn(in_features, in_features, generator=generator) / in_features**0.5
    x = torch.randn(TOKENS, in_features, generator=generator) @ mixing
    stats = LinearStats(n_tokens=TOKENS, hessian=2 / TOKENS * x.T @ x, mean_abs=x.abs().mean(0), rows=x[:ROWS])
    return stats, [torch.randn(rows, in_features, generator=generator) / in_features**0.5 for rows in out_features]


def rounded_by(rounding: Any, grid: Format) -> Method:
    """The method that rounds each weight of a group by itself."""
    assert isinstance(rounding, Rounding)
    return lambda group: [rounding.round(w, group[0], grid).weight.dequantize() for w in group[1]]


def awq(grid: Format) -> Method:
    """Scale and clip, then round to nearest."""

    def method(group: Group) -> list[Tensor]:
        stats, weights = group
        scale = AwqScale().scale(weights, stats, [grid] * len(weights))
        scaled = stats.rescaled(scale)
        bounds = [AwqClip().bound(w * scale, scaled, grid) for w in weights]
        clipped = [(w * scale).clamp(-bound, bound) for w, bound in zip(weights, bounds, strict=True)]
        return [quantize(w, grid).dequantize() / scale for w in clipped]

    return method


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds, and what the last run gave."""
    seconds: list[float] = []
    while len(seconds) < REPEATS and sum(seconds) < PATIENCE:
        start = time.process_time()
        result = work()
        seconds.append(time.process_time() - start)
    return min(seconds), result


def total_error(groups: list[Group], results: list[list[Tensor]]) -> float:
    """The output error of all layers."""
    return sum(
        output_error(before - after, stats.require("hessian"))
        for (stats, weights), rounded in zip(groups, results, strict=True)
        for before, after in zip(weights, rounded, strict=True)
    )


def layers() -> None:
    """The first table."""
    groups = [make_group(*sizes) for sizes in BLOCK.values()]
    print(f"SmolLM2-135M block, {torch.get_num_threads()} thread, torch {torch.__version__}")
    print(f"{'method':<24}{'bits':>6}{'CPU s':>9}{'x nearest':>11}{'error':>8}")
    base = None
    for name, (option, *overrides) in METHODS.items():
        chosen = recipe(option, *overrides)
        grid = chosen.weight
        assert grid is not None
        method = awq(grid) if name.startswith("awq") else rounded_by(chosen.rounding, grid)
        seconds, results = timed(lambda method=method: [method(group) for group in groups])  # type: ignore[misc]
        base = base or seconds
        plain = recipe(option, *(o for o in overrides if ".range=" not in o)).weight
        assert plain is not None
        nearest = [[quantize(w, plain).dequantize() for w in weights] for _, weights in groups]
        error = total_error(groups, results) / total_error(groups, nearest)
        bits = grid.bits_per_weight((576, 576))
        print(f"{name:<24}{bits:>6.2f}{seconds:>9.3f}{seconds / base:>11.1f}{error:>8.3f}")


@torch.no_grad()
def blocks() -> None:
    """The second table."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_attention_heads": 4,
        "num_hidden_layers": 1,
    }
    model = LlamaForCausalLM(LlamaConfig(vocab_size=128, **sizes))
    tokens = torch.randint(0, 128, (8, 64))
    tokenizer: PreTrainedTokenizerFast = None  # type: ignore[assignment] # nothing is read
    handle = ModelHandle(model, tokenizer, "random")
    before = model(input_ids=tokens).logits
    print("\none block of width 64, 8 x 64 tokens, 3 bits, groups of 32, 20 steps where it learns")
    print(f"{'method':<24}{'CPU s':>9}{'x nearest':>11}{'error':>8}")
    base: tuple[float, float] | None = None
    for name in LEARNED:
        short = {"steps": 20, "batch": 8}
        size = ("quantizer.weight.bits=3", "quantizer.weight.group_size=32")
        chosen = recipe(name, *size, "quantizer.activation=null", options=short)
        data = None if chosen.data_free else tokens
        seconds, found = timed(
            lambda chosen=chosen, data=data: quantize_model(  # type: ignore[misc]
                handle, chosen, data, torch.device("cpu"), lambda _done, _total: None
            )
        )
        found.artifact.install(handle)
        error = float((model(input_ids=tokens).logits - before).norm())
        base = base or (seconds, error)
        print(f"{name:<24}{seconds:>9.3f}{seconds / base[0]:>11.1f}{error / base[1]:>8.3f}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    layers()
    blocks()
