"""What quantizing the packaged model costs, beside other tools: the same tokens, formats and threads, in turn.

    python -m benchmarks.peers.costs FOLDER                 # what is missing; three hours (both are estimates)
    python -m benchmarks.peers.costs FOLDER --short         # one repetition of each work's first setting: 45 minutes
    python -m benchmarks.peers.costs FOLDER --only HQQ      # works whose name begins so; may be given again
    python -m benchmarks.peers.costs FOLDER --table         # the tables of what is there; runs nothing

Run it on an idle machine. Settings that are repeated come first, and of each setting every tool does one repetition
before any does the next. CPU and wall seconds are of quantizing alone, without imports, loading and saving; memory is
the peak of the process above what it held after its imports, and of that what is private; "other work" is the most that
the machine's processors did beside it, in processors. After its first repetition the weights that a tool wrote are
scored by one loop (benchmarks.peers.score). Measurements are appended to costs.jsonl beside this file, and what is
there is not measured again (--lines for another file: that of another machine, say). benchmarks.peers.work has the
kinds of work, benchmarks.peers.floor what the machine could do at best.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.peers.floor import matrix_rate, operations
from benchmarks.peers.makers import HERE, MAKERS, MakerError, environment, prepare, run
from benchmarks.peers.score import TEXTS
from benchmarks.peers.work import OURS, WORK, Measurement, Setting, Work, measurements
from tabulate import tabulate

from quantbench.core.environment import machine

MODEL_BYTES = 134_515_008 * 4
"""The packaged model in float32."""
FLOOR_FACTOR = 1.3
"""Where the target lies below so many times the floor, the floor is the target."""

Line = dict[str, Any]


def measure(folder: Path, one: Measurement) -> Line:
    """One measurement, with scores if it is the first of its kind. Raises MakerError."""
    work = WORK[one.work]
    name, *rest = work.command(one.tool, one.setting)
    out, maker = folder / f"costs-{os.getpid()}.begun", MAKERS.get(name)
    shutil.rmtree(out, ignore_errors=True)
    source = [str(folder / "base"), str(folder / tokens_file(one.setting.sequences)), str(out)]
    if maker is None:
        command = [sys.executable, str(HERE / "by_quantbench.py"), *source, name, *rest]
    else:
        command = [str(environment(folder, name)), str(HERE / maker.script), *source, *rest]
    try:
        others = OtherWork()
        found: Line = dict(run(folder, out.stem, command, one.setting.threads))
        found["other_work"] = others.cores()
        if one.repetition == 0 and one.setting.threads == 1:
            scoring = [sys.executable, str(HERE / "score.py"), str(folder / "base"), str(out)]
            try:
                found["scores"] = dict(run(folder, f"{out.stem}-score", scoring, 1))
            except MakerError as error:  # a checkpoint that quantbench does not read
                found["not_scored"] = str(error)
        return found
    finally:
        shutil.rmtree(out, ignore_errors=True)


class OtherWork:
    """How much the machine has done since, beside this process and the children that it has waited for."""

    def __init__(self) -> None:
        self._wall, self._busy, self._own = time.monotonic(), busy_seconds(), sum(os.times()[:4])

    def cores(self) -> float:
        """Processor seconds of everything else in a second, on the average."""
        others = busy_seconds() - self._busy - (sum(os.times()[:4]) - self._own)
        return max(0.0, others / (time.monotonic() - self._wall))


def busy_seconds() -> float:
    """Seconds that the machine's processors have worked, all together, since it was started."""
    with Path("/proc/stat").open(encoding="ascii") as lines:
        user, nice, system, _idle, _waiting, *interrupts = map(int, next(lines).split()[1:8])
    return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")


def tokens_file(sequences: int) -> str:
    """The file with so many calibration sequences."""
    return "tokens.safetensors" if sequences == 8 else f"tokens-{sequences}.safetensors"


def read(file: Path) -> list[Line]:
    """What was measured."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []


def key(line: Line) -> tuple[str, str, str, int]:
    """As `Measurement.key`."""
    return line["work"], line["setting"], line["tool"], line["repetition"]


def measure_missing(folder: Path, file: Path, wanted: Sequence[Measurement]) -> dict[str, str]:
    """Measure what is not in the file yet; what failed, with the reason."""
    failed: dict[str, str] = {}
    there = {key(line) for line in read(file)}
    rates: dict[int, float] = {}
    for one in wanted:
        if one.key in there:
            continue
        print(f"== {one.work}, {one.setting}: {one.tool}, repetition {one.repetition + 1}", flush=True)
        threads = one.setting.threads
        rates[threads] = rates.get(threads) or matrix_rate(threads)
        try:
            found = measure(folder, one)
        except (MakerError, subprocess.CalledProcessError) as error:
            failed[f"{one.work}, {one.setting}: {one.tool}"] = str(error)
            continue
        known = dict(zip(("work", "setting", "tool", "repetition"), one.key, strict=True))
        known |= {"date": f"{datetime.date.today()}", "machine": machine()["cpu"], "matrix_rate": rates[threads]}
        with file.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(known | found) + "\n")
    return failed


def tables(done: Sequence[Line]) -> None:
    """Print the targets of each work and setting, then what every tool took."""
    verdicts, costs = [], []
    for name, work in WORK.items():
        for setting, _ in work.settings():
            own = {tool: _of(done, name, str(setting), tool) for tool in work.tools}
            own = {tool: lines for tool, lines in own.items() if lines}
            if (line := _verdict(name, work, setting, own)) is not None:
                verdicts.append(line)
            costs += [_cost(name, setting, tool, lines) for tool, lines in own.items()]
    heads = ["work", "setting", "quantbench", "CPU s", "best rival", "CPU s", "ratio", "target", "floor, CPU s", "met"]
    heads.append("processor")
    print(tabulate(verdicts, heads, tablefmt="github", disable_numparse=True), end="\n\n")
    heads = [
        "work",
        "setting",
        "tool",
        "times",
        "CPU s",
        "wall s",
        "other work",
        "private, of the model",
        "with mapped files",
    ]
    heads += [f"KL: {text}" for text in TEXTS] + [f"perplexity: {text}" for text in TEXTS]
    print(tabulate(costs, heads, tablefmt="github", disable_numparse=True))


def _of(done: Sequence[Line], work: str, setting: str, tool: str) -> list[Line]:
    wanted = (work, setting, tool)
    return [line for line in done if (line["work"], line["setting"], line["tool"]) == wanted]


def _verdict(name: str, work: Work, setting: Setting, own: dict[str, list[Line]]) -> list[str] | None:
    """A line of the table of targets; None without a rival. The first tool of the work is the one that has a target."""
    mine = next(iter(work.tools))
    rivals = {tool: _median(lines, "cpu_seconds") for tool, lines in own.items() if not tool.startswith(OURS)}
    if mine not in own or not rivals:
        return None
    best, ours = min(rivals, key=rivals.__getitem__), _median(own[mine], "cpu_seconds")
    recipe = work.tools[mine][0]
    needed = operations(recipe, 512 * setting.sequences)
    floor = None if needed is None else needed / _median(own[mine], "matrix_rate")
    wanted, said = work.target * rivals[best], f"{work.target:g}"
    if floor is not None and wanted < FLOOR_FACTOR * floor:
        wanted, said = FLOOR_FACTOR * floor, f"{FLOOR_FACTOR:g} x floor"
    ratio = f"{ours / rivals[best]:.2f}"
    shown = "" if floor is None else f"{floor:.1f}"
    met = "yes" if ours <= wanted else f"no: {wanted:.1f} s"
    # Seconds of two machines make no ratio.
    on = sorted({line["machine"] for lines in own.values() for line in lines})
    if len(on) > 1:
        ratio = met = "several machines"
    cells = [name, str(setting), recipe, f"{ours:.1f}", best, f"{rivals[best]:.1f}", ratio, said, shown, met]
    return [*cells, ", ".join(on)]


def _cost(name: str, setting: Setting, tool: str, lines: Sequence[Line]) -> list[str]:
    cpu, wall = (f"{_median(lines, key):.1f}" for key in ("cpu_seconds", "wall_seconds"))
    others = f"{max(line['other_work'] for line in lines):.2f}"
    private, resident = (
        f"{statistics.median(line[peak] - line[imported] for line in lines) / MODEL_BYTES:.2f}"
        for peak, imported in (("peak_private_bytes", "imported_private_bytes"), ("peak_bytes", "imported_bytes"))
    )
    scores = next((line["scores"] for line in lines if "scores" in line), None)
    scored = [f"{scores[text][what]:.4g}" if scores else "" for what in ("kl", "perplexity") for text in TEXTS]
    return [name, str(setting), tool, str(len(lines)), cpu, wall, others, private, resident, *scored]


def _median(lines: Sequence[Line], name: str) -> float:
    return float(statistics.median(line[name] for line in lines))


def main() -> int:
    """Measure what is missing, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--lines", type=Path, default=HERE / "costs.jsonl", help="what is measured")
    parser.add_argument("--repeat", type=int, default=3, help="repetitions of each work's first setting")
    parser.add_argument("--short", action="store_true", help="one repetition of each work's first setting")
    parser.add_argument("--only", action="append", default=[], help="the beginning of a work's name")
    parser.add_argument("--table", action="store_true", help="run nothing")
    given = parser.parse_args()
    folder = given.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    failed: dict[str, str] = {}
    if not given.table:
        chosen = tuple(given.only) or ("",)
        wanted = [one for one in measurements(given.repeat, given.short) if one.work.startswith(chosen)]
        if not wanted:
            parser.error(f"--only {given.only}: no work begins so. Works: {', '.join(WORK)}")
        for sequences in sorted({one.setting.sequences for one in wanted}):
            prepare(folder, tokens_file(sequences), sequences)
        failed = measure_missing(folder, given.lines, wanted)
    tables(read(given.lines))
    for what, reason in failed.items():
        print(f"not measured: {what}: {reason}")
    for line in read(given.lines):
        if "not_scored" in line:
            print(f"not scored: {line['work']}, {line['setting']}: {line['tool']}: {line['not_scored']}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
