"""What the options of GPTQ and others cost or gain: order, range, damping, weighted search, at 4 and 3 bits.

    python benchmarks/gptq_defaults.py                              # what is missing in gptq_defaults.csv; hours
    python benchmarks/gptq_defaults.py --only minmax --only mse   # some candidates
    python benchmarks/gptq_defaults.py --only awq --grid asymmetric --bits 4
    python benchmarks/gptq_defaults.py --table                      # the table of what is there; computes nothing

Each candidate is a grid of its own, in groups of 64, asymmetric and symmetric (or only as it is defined): calibrated on
three disjoint draws of 8 x 512 tokens of `wiki_sample` and of `code_sample` each, tested on both. What is measured is
appended to gptq_defaults.csv beside this file, a line a draw, calibration text and test text, so that a measurement
goes on where it was, on another machine as well; what is in it is not computed again. Several processes may add to it,
each for candidates of its own. It is of one version of the numerics: lines of another one are refused.

The table has the mean KL divergence from full precision, over draws and texts, tested on the text calibrated on and on
the other one, each with the standard deviation of the three draws' means; the difference from the candidate's reference
with the standard error of the six paired differences (of two, the texts, where neither reads data); and the CPU
seconds of quantizing. "incomplete" marks candidates of which draws or texts are missing.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

import quantbench
from quantbench.core.version import NUMERICS_VERSION
from quantbench.launch.naming import sweep_name

FILE = Path(__file__).with_suffix(".csv")
KEY = ["candidate", "grid", "bits", "calib", "test", "draw", "seed"]
COLUMNS = [*KEY, "kl", "cpu_seconds", "numerics"]

UPDATED = "quantizer.rounding.static_groups=false"
MSE, MINMAX = "quantizer.weight.range=mse", "quantizer.weight.range=minmax"
AWARE = "quantizer.rounding.order=group_aware"
WEIGHTED = "quantizer.rounding.weighted_range=true"
REAL = ("quantizer.weight.group_size=64", "quantizer.weight.zero_rounding=false")
LEVELS = ("quantizer.weight.zero_rounding=true", "quantizer.weight.double_quantization.zero_bits=null")

GRIDS = {
    "asymmetric": ("quantizer.weight.symmetric=false",),
    "symmetric": ("quantizer.weight.symmetric=true", "quantizer.weight.scale_convention=full_range"),
}
BOTH = ("asymmetric", "symmetric")
OWN = "as defined"
TEXTS, DRAWS, BITS, SEED = ("wiki_sample", "code_sample"), 3, (4, 3), 0


@dataclass(frozen=True)
class Candidate:
    """A recipe: the options that make it; its grids; what it is compared with; its bits, and whether it reads data."""

    options: tuple[str, ...]
    reference: str = "minmax"
    grids: tuple[str, ...] = BOTH
    bits: tuple[int, ...] = BITS
    calibrated: bool = True


def _gptq(*options: str) -> Candidate:
    return Candidate(("quantizer=gptq", *options) if MSE in options else ("quantizer=gptq", MINMAX, *options))


CANDIDATES: dict[str, Candidate] = {
    "minmax": _gptq(),
    "paper": Candidate(("quantizer=gptq_paper",)),
    "mse": _gptq(MSE),
    "mse, weighted": _gptq(MSE, WEIGHTED),
    "mse, group-aware, weighted": _gptq(MSE, AWARE, UPDATED, WEIGHTED),
    "nearest": Candidate(("quantizer=rtn",), calibrated=False),
    "nearest, mse": Candidate(("quantizer=rtn", MSE), "nearest", calibrated=False),
    "natural": _gptq("quantizer.rounding.order=natural", UPDATED),
    "activation, updated": _gptq(UPDATED),
    "group-aware": _gptq(AWARE, UPDATED),
    "group-aware, damping .05": _gptq(AWARE, UPDATED, "quantizer.rounding.damping=0.05"),
    "group-aware, static": _gptq(AWARE),
    "mse, damping .05": _gptq(MSE, "quantizer.rounding.damping=0.05"),
    "mse, natural": _gptq(MSE, "quantizer.rounding.order=natural", UPDATED),
    "mse, group-aware": _gptq(MSE, AWARE, UPDATED),
    "mse, group-aware, damping .05": _gptq(MSE, AWARE, UPDATED, "quantizer.rounding.damping=0.05"),
    "awq": Candidate(("quantizer=awq",)),
    "awq, mse": Candidate(("quantizer=awq", MSE), "awq"),
    "gptq_awq, minmax": Candidate(("quantizer=gptq_awq", MINMAX), "gptq_awq, minmax"),
    "gptq_awq, mse": Candidate(("quantizer=gptq_awq", MSE), "gptq_awq, minmax"),
    "nearest, real zero points": Candidate(
        ("quantizer=rtn", *REAL), "nearest, real zero points", (OWN,), calibrated=False
    ),
    "hqq, real start": Candidate(
        ("quantizer=hqq", "quantizer.rounding.start=real"), "nearest, real zero points", (OWN,), calibrated=False
    ),
    "hqq": Candidate(("quantizer=hqq",), "hqq, real start", (OWN,), calibrated=False),
    "spqr": Candidate(("quantizer=spqr",), "spqr", (OWN,), (3, 4)),
    "spqr, integer zero points": Candidate(("quantizer=spqr", *LEVELS), "spqr", (OWN,), (3, 4)),
    "spqr, integer zero points, mse": Candidate(("quantizer=spqr", *LEVELS, MSE), "spqr", (OWN,), (3, 4)),
    "zeroquant, weights": Candidate(
        ("quantizer=zeroquant", "quantizer.activation=null"), "zeroquant, weights", (OWN,), (8, *BITS), False
    ),
    "zeroquant, weights, mse": Candidate(
        ("quantizer=zeroquant", "quantizer.activation=null", MSE), "zeroquant, weights", (OWN,), (8, *BITS), False
    ),
    "smoothquant": Candidate(("quantizer=smoothquant",), "smoothquant", (OWN,), (8, *BITS)),
    "smoothquant, mse": Candidate(("quantizer=smoothquant", MSE), "smoothquant", (OWN,), (8, *BITS)),
}
"""Recipes by the words of the table, the most telling first. `awq, mse` searches ranges within what the clip left."""


@dataclass(frozen=True)
class Part:
    """What is measured by one command: a candidate on a grid with so many bits, all draws of both texts."""

    candidate: str
    grid: str
    bits: int

    @property
    def command(self) -> list[str]:
        """Its overrides."""
        chosen = CANDIDATES[self.candidate]
        size = () if self.grid == OWN else ("quantizer.weight.group_size=64",)
        return [
            *chosen.options,
            *GRIDS.get(self.grid, ()),
            *size,
            f"quantizer.weight.bits={self.bits}",
            f"calib={','.join(TEXTS)}",
            f"calib.draw={','.join(map(str, self.draws))}",
            f"seed={SEED}",
            "calib.n=8",
            "eval=two_samples",
            "save=none",
            "threads=1",
        ]

    @property
    def draws(self) -> range:
        """The draws of each text; the first alone for a recipe without data, which is the same with every one."""
        return range(DRAWS if CANDIDATES[self.candidate].calibrated else 1)

    @property
    def keys(self) -> list[tuple[Any, ...]]:
        """The lines that it makes: those of a recipe without data hold for every text and draw."""
        calibs = TEXTS if CANDIDATES[self.candidate].calibrated else ("-",)
        return [
            (self.candidate, self.grid, self.bits, calib, test, draw, SEED)
            for calib in calibs
            for test in TEXTS
            for draw in self.draws
        ]


def parts(names: list[str]) -> list[Part]:
    """All that is to be measured: of every candidate first what it is by default, asymmetric or as it is defined."""
    found = [
        Part(name, grid, bits) for name in names for grid in CANDIDATES[name].grids for bits in CANDIDATES[name].bits
    ]
    return sorted(found, key=lambda part: part.grid == "symmetric")


def read() -> pd.DataFrame:
    """What was measured. Exits if it is of another version of the numerics."""
    if not FILE.exists():
        return pd.DataFrame(columns=COLUMNS)
    frame = pd.read_csv(FILE)
    if (frame.numerics != NUMERICS_VERSION).any():
        sys.exit(f"{FILE} has lines of another version of the numerics than {NUMERICS_VERSION}: remove them")
    return frame


def done(frame: pd.DataFrame) -> set[tuple[Any, ...]]:
    return set(frame[KEY].itertuples(index=False, name=None))


def measure(part: Part) -> pd.DataFrame:
    """Run the command, which goes on where it was, and give its lines. Raises CalledProcessError if it fails."""
    subprocess.run([sys.executable, "-m", "quantbench", "-m", *part.command], check=True)
    name = sweep_name(part.command, {})
    frame = quantbench.read_sweep(name)
    costs = pd.read_csv(quantbench_sweep(name) / "costs.csv")
    seconds = costs[costs.what == "quantize"].groupby("run_id").cpu_seconds.min()
    kl = frame[(frame.metric == "kl") & ~frame.full_precision]
    lines = pd.DataFrame(
        {
            "candidate": part.candidate,
            "grid": part.grid,
            "bits": part.bits,
            "calib": kl.calib.where(~kl.data_free.astype(bool), "-"),
            "test": kl.distribution,
            "draw": kl.draw.astype(float).fillna(0).astype(int),
            "seed": SEED,
            "kl": kl.value.astype(float).round(6),
            "cpu_seconds": kl.run_id.map(seconds).astype(float).round(1),
            "numerics": NUMERICS_VERSION,
        }
    )
    return lines.drop_duplicates(KEY)


def quantbench_sweep(name: str) -> Path:
    """The folder of a sweep."""
    from quantbench.core.paths import outputs_folder

    return outputs_folder() / "sweeps" / name


def values(frame: pd.DataFrame, part: Part, same: bool) -> pd.Series:
    """KL by test text and draw of a candidate, tested on the text calibrated on or on the other one."""
    chosen = frame[(frame.candidate == part.candidate) & (frame.grid == part.grid) & (frame.bits == part.bits)]
    if not CANDIDATES[part.candidate].calibrated:
        chosen = pd.concat([chosen.assign(draw=draw) for draw in range(DRAWS)]) if len(chosen) else chosen
    else:
        chosen = chosen[(chosen.calib == chosen.test) == same]
    found: pd.Series = chosen.set_index(["test", "draw"])["kl"].astype(float).sort_index()
    return found


def row(frame: pd.DataFrame, part: Part) -> str | None:
    """A line of the table, None where nothing was measured."""
    text, whole = "", len(TEXTS) * DRAWS
    reference = CANDIDATES[part.candidate].reference
    for same in (True, False):
        found = values(frame, part, same)
        if found.empty:
            return None
        text += f" | {found.mean():.4f} | {found.groupby('draw').mean().std():.4f} | "
        paired = (found - values(frame, Part(reference, part.grid, part.bits), same)).dropna()
        if not (CANDIDATES[part.candidate].calibrated or CANDIDATES[reference].calibrated):
            paired = paired[paired.index.get_level_values("draw") == 0]  # every draw is the same
        if reference != part.candidate and len(paired):
            text += f"{paired.mean():+.4f}±{paired.std() / len(paired) ** 0.5:.4f}"
        whole = min(whole, len(found))
    chosen = frame[(frame.candidate == part.candidate) & (frame.grid == part.grid) & (frame.bits == part.bits)]
    missing = "" if whole == len(TEXTS) * DRAWS else " (incomplete)"
    return f"| {part.candidate}{missing}{text} | {chosen.cpu_seconds.mean():.0f} |"


def table(frame: pd.DataFrame) -> None:
    """Print what there is."""
    for grid in (*BOTH, OWN):
        for bits in sorted({bits for one in CANDIDATES.values() for bits in one.bits}, reverse=True):
            named = {name: one for name, one in CANDIDATES.items() if grid in one.grids and bits in one.bits}
            rows = [found for name in named if (found := row(frame, Part(name, grid, bits)))]
            if rows:
                print(f"\n{grid}, {bits} bits\n")
                print("| candidate | same text | sd | difference | other text | sd | difference | CPU s |")
                print("|---|---|---|---|---|---|---|---|")
                print("\n".join(rows))


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", action="append", metavar="CANDIDATE", help="this candidate; may be given again")
    parser.add_argument("--grid", action="append", choices=[*BOTH, OWN], help="on this grid; may be given again")
    parser.add_argument("--bits", action="append", type=int, help="of so many bits; may be given again")
    parser.add_argument("--table", action="store_true", help="compute nothing")
    given = parser.parse_args()
    for name in given.only or []:
        if name not in CANDIDATES:
            parser.error(f"--only {name}: no such candidate; there are {'; '.join(CANDIDATES)}")
    wanted = [] if given.table else parts(given.only or list(CANDIDATES))
    for part in wanted:
        if part.grid not in (given.grid or [part.grid]) or part.bits not in (given.bits or [part.bits]):
            continue
        frame = read()
        missing = set(part.keys) - done(frame)
        if missing:
            print(f"== {part}", flush=True)
            new = measure(part)
            new = new[[key in missing for key in new[KEY].itertuples(index=False, name=None)]]
            text = new[COLUMNS].to_csv(index=False, header=not FILE.exists(), lineterminator="\n")
            with FILE.open("a", encoding="utf-8") as file:
                file.write(text)
    table(read())
    return 0


if __name__ == "__main__":
    sys.exit(main())
