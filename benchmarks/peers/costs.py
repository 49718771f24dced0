"""What quantizing the packaged model costs, beside other tools: the same tokens, formats and threads, in turn.

    python -m benchmarks.peers.costs FOLDER                 # what is missing of three repetitions; two hours
    python -m benchmarks.peers.costs FOLDER --repeat 1
    python -m benchmarks.peers.costs FOLDER --table         # the table of what is there; runs nothing

Run it on an idle machine. Of each kind of work every tool does one repetition before any does the next. CPU and wall
seconds are of quantizing alone, without imports, loading and saving; memory is the peak of the process above what it
held after its imports. Whether the weights are as good is in the table of `benchmarks.peers.files`. Measurements are
appended to costs.jsonl in FOLDER, and what is there is not measured again.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.peers.makers import HERE, MAKERS, MakerError, environment, prepare, run

GROUPS = "quantizer.weight.group_size=64"
SYMMETRIC = ("quantizer.weight.symmetric=true", "quantizer.weight.scale_convention=full_range")
WORK: dict[str, dict[str, tuple[str, ...]]] = {
    "GPTQ, W4 asymmetric": {
        "quantbench gptq": ("gptq", GROUPS),
        "quantbench gptq_paper": ("gptq_paper", GROUPS),
        "llmcompressor": ("llmcompressor", "gptq"),
        "gptqmodel": ("gptqmodel", "asymmetric"),
    },
    "GPTQ, W4 symmetric": {
        "quantbench gptq": ("gptq", GROUPS, *SYMMETRIC),
        "gptqmodel": ("gptqmodel", "symmetric"),
    },
    "AWQ, W4 asymmetric": {"quantbench awq": ("awq", GROUPS), "llmcompressor": ("llmcompressor", "awq")},
    "SmoothQuant, W8A8": {
        "quantbench smoothquant": ("smoothquant", "quantizer.transforms.smooth.alpha=0.5"),
        "llmcompressor": ("llmcompressor", "w8a8"),
    },
    "HQQ, W4": {"quantbench hqq": ("hqq",), "hqq": ("hqq_package", "4")},
    "nearest, W4 asymmetric": {"quantbench rtn": ("rtn", GROUPS), "torchao": ("torchao", "int4")},
}
"""Kinds of work: tools by name, each with a recipe of quantbench and overrides, or a maker and what it is asked for."""


def measure(folder: Path, given: tuple[str, ...]) -> dict[str, float]:
    """One measurement. Raises MakerError."""
    name, *rest = given
    out = folder / "costs.begun"
    source = [str(folder / "base"), str(folder / "tokens.safetensors"), str(out)]
    maker = MAKERS.get(name)
    if maker is None:
        command = [sys.executable, str(HERE / "by_quantbench.py"), *source, name, *rest]
    else:
        command = [str(environment(folder, name)), str(HERE / maker.script), *source, *rest]
    try:
        return dict(run(folder, "costs", command))
    finally:
        shutil.rmtree(out, ignore_errors=True)


def read(file: Path) -> list[dict[str, Any]]:
    """What was measured."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []


def missing(done: list[dict[str, Any]], repeat: int) -> Iterator[tuple[str, str, int]]:
    """Work, tool and repetition, tools in turn."""
    there = {(one["work"], one["tool"], one["repetition"]) for one in done}
    for work, tools in WORK.items():
        for repetition in range(repeat):
            yield from ((work, tool, repetition) for tool in tools if (work, tool, repetition) not in there)


def table(done: list[dict[str, Any]]) -> None:
    """Print medians, and each tool's CPU seconds relative to the first of its work."""
    print("| work | tool | repetitions | CPU s | wall s | relative CPU | GiB above imports |")
    print("|---|---|---|---|---|---|---|")
    for work, tools in WORK.items():
        first: float | None = None
        for tool in tools:
            own = [one for one in done if one["work"] == work and one["tool"] == tool and "cpu_seconds" in one]
            if not own:
                continue
            cpu, wall = (statistics.median(one[key] for one in own) for key in ("cpu_seconds", "wall_seconds"))
            above = statistics.median(one["peak_bytes"] - one["imported_bytes"] for one in own) / 2**30
            first = first or cpu
            print(f"| {work} | {tool} | {len(own)} | {cpu:.1f} | {wall:.1f} | {cpu / first:.2f} | {above:.2f} |")


def main() -> int:
    """Measure what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--table", action="store_true", help="run nothing")
    given = parser.parse_args()
    folder = given.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    file, failed = folder / "costs.jsonl", dict[str, str]()
    if not given.table:
        prepare(folder)
        for work, tool, repetition in missing(read(file), given.repeat):
            print(f"== {work}: {tool}, repetition {repetition + 1}", flush=True)
            try:
                cost = measure(folder, WORK[work][tool])
            except (MakerError, subprocess.CalledProcessError) as error:
                failed[f"{work}: {tool}"] = str(error)
                continue
            key = {"work": work, "tool": tool, "repetition": repetition, "machine": platform.processor()}
            with file.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps(key | cost) + "\n")
    table(read(file))
    for what, reason in failed.items():
        print(f"not measured: {what}: {reason}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
