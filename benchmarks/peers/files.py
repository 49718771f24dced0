"""Files that other tools quantized, beside quantbench's own recipes: the packaged model, the same calibration tokens.

    python -m benchmarks.peers.files FOLDER                # what is missing there; an hour, some 10 GB
    python -m benchmarks.peers.files FOLDER --only gguf    # files of one maker
    python -m benchmarks.peers.files FOLDER --table        # the table of what is there; makes nothing

`benchmarks.peers.makers` makes them. All files are then scored as `quantizer=checkpoint`, in one sweep with recipes of
quantbench, on `wiki_sample` and `code_sample`. What failed is named at the end, with the last line that it said.
Everything goes on where it was.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pandas as pd
from benchmarks.peers.makers import CALIB, MAKERS, ROOT, make, prepare

import quantbench
from quantbench.launch.naming import sweep_name

OURS = ("rtn", "gptq", "gptq_paper", "awq", "gptq_awq")
TESTS = ("wiki_sample", "code_sample")


def paths(folder: Path) -> dict[str, Path]:
    """The files that are there, by name."""
    found = {}
    for maker in MAKERS.values():
        for file in maker.files:
            out = folder / "files" / file
            if out.exists():
                config = next(out.rglob("config.json"), out / "config.json")  # auto-round adds a folder of its own
                found[file] = next(out.glob("*.gguf"), config.parent)
    return found


def command(files: dict[str, Path]) -> list[str]:
    """The sweep's overrides."""
    return [
        f"quantizer=checkpoint,{','.join(OURS)}",
        f"quantizer.path={','.join(map(str, files.values()))}",
        "quantizer.weight.group_size=64",
        *CALIB,
        "eval=two_samples",
        "save=none",
        "threads=1",
    ]


def table(files: dict[str, Path]) -> None:
    """Print what the sweep has found: by the bits of quantized weights, then by KL on the text calibrated on."""
    frame = quantbench.read_sweep(sweep_name(command(files), {}))
    lines: list[tuple[float, float, str]] = []
    for _, rows in frame.groupby("run_id", sort=False):
        first = rows.iloc[0]
        foreign = str(first.variant) if first.quantizer == "checkpoint" else ""
        name = next((file for file in files if file in foreign), str(first.quantizer))
        cells = [name, f"{first.effective_bits:.2f}", f"{first.bits_model:.2f}"]
        kl = 0.0
        for test in reversed(TESTS):
            own = rows[rows.distribution == test].set_index("metric")
            kl = float(own.value["kl"])
            change = own.difference["perplexity"], own.difference_stderr["perplexity"]
            paired = "" if pd.isna(change[0]) else f"{change[0]:+.2f}±{change[1]:.2f}"
            cells[3:3] = [f"{own.value['perplexity']:.2f}", paired, f"{kl:.4f}±{own.stderr['kl']:.4f}"]
        lines.append((round(float(first.effective_bits), 2), kl, f"| {' | '.join(cells)} |"))
    heads = [f"{test}: {what}" for test in TESTS for what in ("perplexity", "− full precision", "KL")]
    print(f"| file or recipe | bits | bits, all parameters | {' | '.join(heads)} |")
    print("|---" * (3 + len(heads)) + "|")
    for _, _, line in sorted(lines):
        print(line)


def main() -> int:
    """Make what is missing, score it, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", action="append", choices=list(MAKERS), help="this maker; may be given again")
    parser.add_argument("--table", action="store_true", help="make nothing")
    given = parser.parse_args()
    folder = given.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    failed: dict[str, str] = {}
    if not given.table:
        prepare(folder)
        for name in given.only or MAKERS:
            for file in MAKERS[name].files:
                if (reason := make(folder, name, file)) is not None:
                    failed[file] = reason
        line = [sys.executable, "-m", "quantbench", "-m", *command(paths(folder))]
        subprocess.run(line, check=True, cwd=ROOT)
    table(paths(folder))
    for file, reason in failed.items():
        print(f"not made: {file}: {reason}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
