"""Runs sweeps/study.yaml in parts, to be gone on with whenever there is time. Not a test: it takes days.

    python benchmarks/study.py --list
    python benchmarks/study.py --minutes 100 [--draws 3] [--windows 200] [--packs FOLDER]

A part is a draw of one calibration set with every recipe that reads data; the first has the recipes that read none.
Parts come in the order of draws, so that three draws are complete before the fourth begins; those of the controls come
after the texts'. A part is begun if, by what parts took here, it ends within the minutes that are left; the first of a
call is always begun. What is interrupted goes on where it stopped. Two workers run a thread each.

What benchmarks/study/ holds was made with --draws 3 --windows 60 --packs benchmarks/study. To go on with it, with more
draws, where none of its runs are: `quantbench merge benchmarks/study/*`, then the same with --draws 5.

--draws    how many draws of each set
--windows  of each text at most so many windows, evenly placed; all parts of a study have the same. Without it, all that
           the texts hold
--packs    a folder: what a finished part scored is packed into a small file there (`quantbench pack`). Files of several
           machines are put together by `quantbench merge FOLDER/*`; the command that --list prints last then makes the
           tables of the whole
"""

from __future__ import annotations

import argparse
import itertools
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import yaml

from quantbench.config.composer import compose_cells
from quantbench.config.settings import tells_apart
from quantbench.core.paths import outputs_folder
from quantbench.launch.naming import sweep_name
from quantbench.store.store import Store

SWEEP = Path(__file__).parents[1] / "sweeps" / "study.yaml"
DATA_FREE = ("rtn", "hqq")
CONTROLS = ("random_tokens", "shuffled")
HOW = ("cluster=local", "cluster.workers=2", "threads=1", "save=none")
TEXTS = {"wiki_sample": 189, "news_sample": 27, "code_sample": 869}
"""The windows of 512 tokens that each test text holds."""


@dataclass(frozen=True)
class Part:
    """One command, and what it is called."""

    name: str
    overrides: tuple[str, ...]

    @property
    def sweep(self) -> str:
        """The name of its sweep."""
        return sweep_name([one for one in self.overrides if tells_apart(one)], {})

    def left(self, store: Store) -> int:
        """How many of its runs have not been scored on every text."""
        cells = {cell.run_id: cell for cell in compose_cells(["-m", *self.overrides])}
        return sum(len(store.scores(run_id)) < len(cell.tasks) for run_id, cell in cells.items())


def overrides(draws: int, windows: int | None, **chosen: str) -> tuple[str, ...]:
    """The study's overrides, some chosen otherwise."""
    params = yaml.safe_load(SWEEP.read_text(encoding="utf-8"))["hydra"]["sweeper"]["params"]
    params["calib.draw"] = ",".join(map(str, range(draws)))
    for text, n in TEXTS.items() if windows is not None else ():
        params[f"eval.tasks.{text}.n_windows"] = min(n, windows or n)
    params |= {key.replace("draw", "calib.draw"): value for key, value in chosen.items()}
    return tuple(f"{key}={value}" for key, value in params.items())


def parts(draws: int, windows: int | None) -> list[Part]:
    """All parts, in their order."""
    params = yaml.safe_load(SWEEP.read_text(encoding="utf-8"))["hydra"]["sweeper"]["params"]
    recipes, sets = params["quantizer"].split(","), params["calib"].split(",")
    first = overrides(draws, windows, quantizer=",".join(DATA_FREE), calib=sets[0], draw="0")
    found = [Part("data-free", first)]
    reading = ",".join(name for name in recipes if name not in DATA_FREE)
    for draw, calib in sorted(itertools.product(range(draws), sets), key=lambda one: one[1] in CONTROLS):
        own = overrides(draws, windows, quantizer=reading, calib=calib, draw=str(draw))
        found.append(Part(f"{calib}-{draw}", own))
    return found


def run(part: Part, packs: Path | None) -> float:
    """Run a part to its end and pack it; the minutes that it took. Ends the program if it fails."""
    started = time.monotonic()
    _quantbench("-m", *part.overrides, *HOW)
    minutes = (time.monotonic() - started) / 60
    if packs is not None:
        packs.mkdir(parents=True, exist_ok=True)
        _quantbench("pack", part.sweep, "--to", str(packs / f"{part.name}.tar.xz"))
    return minutes


def _quantbench(*arguments: str) -> None:
    status = subprocess.run([sys.executable, "-m", "quantbench", *arguments], check=False).returncode
    if status:
        sys.exit(f"study: this ended with status {status}: quantbench {shlex.join(arguments)}")


def study(todo: Sequence[tuple[Part, int]], minutes: float, packs: Path | None) -> None:
    """Run parts while there is time."""
    started, took = time.monotonic(), list[float]()
    for number, (part, left) in enumerate(todo, start=1):
        gone = (time.monotonic() - started) / 60
        if took and gone + median(took) > minutes:
            print(f"study: {gone:.0f} of {minutes:.0f} minutes are gone; {len(todo) - number + 1} parts are left")
            return
        print(f"study: part {number} of {len(todo)} that are left: {part.name}, {left} runs", flush=True)
        took.append(run(part, packs))
        print(f"study: {part.name} took {took[-1]:.0f} minutes", flush=True)
    print("study: done")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="print the parts and what is left of them; run nothing")
    parser.add_argument("--minutes", type=float, default=100)
    parser.add_argument("--draws", type=int, choices=range(1, 6), default=5)
    parser.add_argument("--windows", type=int)
    parser.add_argument("--packs", type=Path)
    given = parser.parse_args()
    store = Store(outputs_folder())
    every = [(part, part.left(store)) for part in parts(given.draws, given.windows)]
    if given.list:
        for part, left in every:
            print(f"{part.name:<18} {f'{left} runs left' if left else 'done'}")
        print("all together: quantbench", shlex.join(["-m", *overrides(given.draws, given.windows)]))
        return
    study([(part, left) for part, left in every if left], given.minutes, given.packs)


if __name__ == "__main__":
    main()
