"""KL of every recipe on the packaged model, under one version of the numerics and the next.

    python -m quantbench +sweep=quantizers_bits        # and the other sweeps quantizers_*; see docs/quantizers.md
    python benchmarks/kl_by_version.py quantizers_bits     # adds what they hold to kl_by_version.csv
    python benchmarks/kl_by_version.py                     # the table of what is there

A line is a recipe, a text, a version: mean KL divergence from full precision in nats per token, with the standard error
over 8 windows; bits as stored. Those of versions 1 and 2 are the tables of docs/quantizers.md as they stood before
quantization was made faster, with errors as they were then, on another machine. The table has the first and the last
version of each, and by how many standard errors of both together they differ; errors of runs that are not independent
(the same windows, the same calibration tokens) make that number too small, so that it is not a test.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import pandas as pd
from tabulate import tabulate

from quantbench.core.version import NUMERICS_VERSION

FILE = Path(__file__).with_suffix(".csv")
KEY = ["recipe", "bits", "text"]
COLUMNS = [*KEY, "version", "kl", "stderr"]


def of_sweep(folder: Path) -> pd.DataFrame:
    """The lines of a sweep's results. Raises FileNotFoundError where there is none."""
    found = pd.read_csv(folder / "results.csv", dtype={"variant": str}, keep_default_na=False)
    found = found[(found["metric"] == "kl") & (found["status"] == "done") & (found["quantizer"] != "none")]
    lines = pd.DataFrame({"recipe": found["quantizer"], "text": found["task"]})
    steps = found["variant"].str.extract(re.compile(r"rounding\.steps=(\d+)"))[0]
    lines["recipe"] += steps.map(lambda count: "" if pd.isna(count) else f", {count} steps")
    lines["bits"] = [
        f"{float(kv or bits):.2f}" for kv, bits in zip(found["kv_bits"], found["effective_bits"], strict=True)
    ]
    lines["kl"], lines["stderr"] = (found[name].astype(float) for name in ("value", "stderr"))
    return lines.assign(version=NUMERICS_VERSION)[COLUMNS]


def read() -> pd.DataFrame:
    """What is kept."""
    return pd.read_csv(FILE, dtype={"bits": str}) if FILE.exists() else pd.DataFrame(columns=COLUMNS)


def shown(line: dict[Hashable, Any]) -> tuple[str, str]:
    """Version and KL."""
    return str(line["version"]), f"{line['kl']:.4g}±{line['stderr']:.2g}"


def table(kept: pd.DataFrame) -> str:
    """One line a recipe and text."""
    rows = []
    for _, lines in kept.groupby(KEY, sort=False):
        first, *later = lines.sort_values("version").to_dict("records")
        row = [*(first[name] for name in KEY), *shown(first)]
        if later:
            last = later[-1]
            apart = (last["kl"] - first["kl"]) / math.hypot(last["stderr"], first["stderr"])
            row += [*shown(last), f"{apart:+.1f}"]
        rows.append(row)
    heads = ["recipe", "bits", "text", "version", "KL", "version", "KL", "standard errors apart"]
    return tabulate(rows, heads, tablefmt="github", disable_numparse=True)


def main() -> None:
    """Add sweeps, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweeps", nargs="*", help="names of sweeps whose results are added")
    parser.add_argument("--outputs", type=Path, default=Path("outputs"), help="the output folder")
    given = parser.parse_args()
    kept = read()
    if not given.sweeps:
        print(table(kept))
        return
    added = pd.concat([of_sweep(given.outputs / "sweeps" / name) for name in given.sweeps])
    kept = pd.concat([kept, added]).drop_duplicates([*KEY, "version"], keep="last")
    kept.to_csv(FILE, index=False, float_format="%.6g")


if __name__ == "__main__":
    main()
