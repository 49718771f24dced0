"""Times quantizing and dequantizing a weight [1536, 576] in every format, side by side, on one thread.

    python benchmarks/formats.py

"x int" is the CPU time relative to 4-bit integers in the same groups as shipped; "error" is the root mean square of the
error relative to that of the weight, which is normally distributed. Times are the least of REPEATS rounds over all
formats, so that a slow moment of the machine hits none alone.
"""

from __future__ import annotations

import time

import torch

from quantbench.config.folders import config_dir
from quantbench.config.named import named_recipe
from quantbench.formats.base import Format
from quantbench.formats.quantize import quantize

REPEATS = 5
NAMES = sorted(path.stem for path in (config_dir() / "format").glob("*.yaml"))
ORDERED = ["int", *(name for name in NAMES if name != "int")]


def shipped(name: str) -> Format:
    """An option of conf/format."""
    recipe = named_recipe("rtn", [f"format@quantizer.weight={name}"])
    assert recipe.weight is not None
    return recipe.weight


def main() -> None:
    torch.set_num_threads(1)
    weight = torch.randn(1536, 576, generator=torch.Generator().manual_seed(0))
    grids = {name: shipped(name) for name in ORDERED}
    least: dict[str, tuple[float, float]] = {}
    for _ in range(REPEATS):
        for name, grid in grids.items():
            start = time.process_time()
            stored = quantize(weight, grid)
            middle = time.process_time()
            stored.dequantize()
            now = middle - start, time.process_time() - middle
            there, back = least.get(name, now)
            least[name] = min(there, now[0]), min(back, now[1])
    print(f"weight [1536, 576], {torch.get_num_threads()} thread, torch {torch.__version__}")
    print(f"{'format':<16}{'bits':>8}{'quantize':>10}{'x int':>7}{'dequantize':>12}{'x int':>7}{'error':>8}")
    first = least[ORDERED[0]]
    for name, grid in grids.items():
        there, back = least[name]
        error = float((quantize(weight, grid).dequantize() - weight).norm() / weight.norm())
        bits = grid.bits_per_weight((1536, 576))
        ratios = there / first[0], back / first[1]
        print(f"{name:<16}{bits:>8.3f}{there:>10.4f}{ratios[0]:>7.1f}{back:>12.4f}{ratios[1]:>7.1f}{error:>8.4f}")


if __name__ == "__main__":
    main()
