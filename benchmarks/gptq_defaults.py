"""What GPTQ's order, range, damping and weighted search are worth, at 4 and 3 bits, over two texts and three draws.

    python benchmarks/gptq_defaults.py                              # all candidates; hours on two cores
    python benchmarks/gptq_defaults.py --only defaults --only mse   # some of them
    python benchmarks/gptq_defaults.py --table                      # the table of what is done; computes nothing

Each candidate is a grid of its own, in groups of 64, asymmetric and symmetric: calibrated on three disjoint draws of
8 x 512 tokens of `wiki_sample` and of `code_sample` each, tested on both. Runs are stored in the usual place, so that
an interrupted measurement goes on where it was. The table has the mean KL divergence from full precision, over draws
and texts, tested on the text calibrated on and on the other one, each with the standard deviation of the three draws'
means; and the difference from `defaults` with the standard error of the six paired differences.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

import pandas as pd

import quantbench
from quantbench.core.errors import StoreError
from quantbench.launch.naming import sweep_name

UPDATED = "quantizer.rounding.static_groups=false"
MSE = "quantizer.weight.range=mse"
AWARE = "quantizer.rounding.order=group_aware"

CANDIDATES: dict[str, tuple[str, ...]] = {
    "defaults": ("quantizer=gptq",),
    "paper": ("quantizer=gptq", "quantizer.rounding.order=natural", UPDATED, "quantizer.true_sequential=false"),
    "natural": ("quantizer=gptq", "quantizer.rounding.order=natural", UPDATED),
    "activation, updated": ("quantizer=gptq", UPDATED),
    "group-aware": ("quantizer=gptq", AWARE, UPDATED),
    "group-aware, damping .05": ("quantizer=gptq", AWARE, UPDATED, "quantizer.rounding.damping=0.05"),
    "group-aware, static": ("quantizer=gptq", AWARE),
    "mse": ("quantizer=gptq", MSE),
    "mse, damping .05": ("quantizer=gptq", MSE, "quantizer.rounding.damping=0.05"),
    "mse, weighted": ("quantizer=gptq", MSE, "quantizer.rounding.weighted_range=true"),
    "mse, natural": ("quantizer=gptq", MSE, "quantizer.rounding.order=natural", UPDATED),
    "mse, group-aware": ("quantizer=gptq", MSE, AWARE, UPDATED),
    "mse, group-aware, damping .05": ("quantizer=gptq", MSE, AWARE, UPDATED, "quantizer.rounding.damping=0.05"),
    "mse, group-aware, weighted": ("quantizer=gptq", MSE, AWARE, UPDATED, "quantizer.rounding.weighted_range=true"),
    "nearest": ("quantizer=rtn",),
    "nearest, mse": ("quantizer=rtn", MSE),
    "awq": ("quantizer=awq",),
    "awq, mse": ("quantizer=awq", MSE),
}
"""Recipes by the words of the table. `awq, mse` searches ranges within what the clip left."""

GRIDS = {
    "asymmetric": ("quantizer.weight.symmetric=false",),
    "symmetric": ("quantizer.weight.symmetric=true", "quantizer.weight.scale_convention=full_range"),
}
DRAWS = 3
COMMON = (
    "quantizer.weight.group_size=64",
    "quantizer.weight.bits=4,3",
    "calib=wiki_sample,code_sample",
    f"calib.draw={','.join(map(str, range(DRAWS)))}",
    "calib.n=8",
    "eval=two_samples",
    "save=none",
)


def command(candidate: str, grid: str) -> list[str]:
    """The overrides of one grid."""
    return [*CANDIDATES[candidate], *GRIDS[grid], *COMMON]


def measured(candidate: str, grid: str) -> pd.DataFrame | None:
    """KL by bits, text calibrated on, text tested on, and draw, as far as it is there."""
    try:
        frame = quantbench.read_sweep(sweep_name(command(candidate, grid), {}))
    except StoreError:
        return None
    kl = frame[(frame.metric == "kl") & ~frame.full_precision]
    return None if kl.empty else kl


def summary(kl: pd.DataFrame, reference: pd.DataFrame | None, bits: int) -> str:
    """One row: tested on the text calibrated on, and on the other one."""
    parts = []
    for same in (True, False):
        chosen = by_draw(kl, bits, same)
        text = f"{chosen.mean():.4f} sd {chosen.groupby('draw').mean().std():.4f}"
        if reference is not None:
            paired = (chosen - by_draw(reference, bits, same)).dropna()
            text += f" {paired.mean():+.4f}±{paired.std() / max(1, len(paired)) ** 0.5:.4f}"
        parts.append(f"{text:>34}")
    return "".join(parts)


def by_draw(kl: pd.DataFrame, bits: int, same: bool) -> pd.Series:
    """The values with these bits, by text tested on and draw; `same`: which is the text calibrated on, too.

    A recipe that reads no data has the same values in both, and for all draws.
    """
    chosen = kl[kl.variant.str.contains(f"bits={bits}", regex=False)]
    if bool(chosen.data_free.all()):
        once = chosen.drop_duplicates("distribution")
        chosen = pd.concat([once.assign(draw=draw) for draw in range(DRAWS)])
    else:
        own = chosen.relation == "in-distribution"
        chosen = chosen[own if same else ~own]
    values: pd.Series = chosen.set_index(["distribution", "draw"])["value"].astype(float).sort_index()
    return values


def table() -> None:
    for grid in GRIDS:
        reference = measured("defaults", grid)
        for bits in (4, 3):
            print(f"\n{grid}, groups of 64, {bits} bits: KL, standard deviation over draws, difference from defaults")
            print(f"{'':<32}{'same text':>34}{'other text':>34}")
            for candidate in CANDIDATES:
                if (kl := measured(candidate, grid)) is not None:
                    against = None if candidate == "defaults" else reference
                    print(f"{candidate:<32}{summary(kl, against, bits)}")


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", action="append", metavar="CANDIDATE", help="this candidate; may be given again")
    parser.add_argument("--table", action="store_true", help="compute nothing")
    given = parser.parse_args()
    if not given.table:
        names = given.only or list(CANDIDATES)
        for name in names:
            if name not in CANDIDATES:
                parser.error(f"--only {name}: no such candidate; there are {'; '.join(CANDIDATES)}")
        for name in names:
            for grid in GRIDS:
                print(f"== {name}, {grid}", flush=True)
                done = subprocess.run([sys.executable, "-m", "quantbench", "-m", *command(name, grid)], check=False)
                if done.returncode:
                    return done.returncode
    table()
    return 0


if __name__ == "__main__":
    sys.exit(main())
