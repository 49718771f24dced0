"""How long a grid of thousands of cells takes to be composed and checked, and to be looked at. Not a test: prints.

    python benchmarks/many_cells.py [--cells 10000]

Composition: seconds for all cells, beside what asking Hydra for each would take (measured on 20 cells). Status: seconds
for one look at the states of as many cells, of which each has a file.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from pathlib import Path

from hydra.types import RunMode

from quantbench.config.composer import offline_composer
from quantbench.config.overrides import to_hydra
from quantbench.config.resolving import resolved
from quantbench.launch.overview import Watch
from quantbench.launch.records import CellStatus, now
from quantbench.launch.state import SweepState

AXES = (
    ["quantizer=gptq", "quantizer=awq", "quantizer=spqr", "quantizer=rtn", "quantizer=hqq"],
    ["quantizer.weight.bits=4", "quantizer.weight.bits=3"],
    ["calib=wiki_sample", "calib=code_sample", "calib=news_sample", "calib=c4", "calib=wiki"],
    ["calib.n=16", "calib.n=64"],
)


def grid(n: int) -> list[list[str]]:
    """n cells."""
    seeds = [f"seed={i}" for i in range(n // 100 + 1)]
    return [list(cell) for cell in itertools.islice(itertools.product(*AXES, seeds), n)]


def compose(cells: list[list[str]]) -> tuple[float, float, int]:
    """Seconds to compose and build all cells; seconds Hydra takes a cell; how often it was asked."""
    handed_on = [to_hydra(cell) for cell in cells]
    with offline_composer() as (composer, loader):
        composer.cells(handed_on[:1])[0].run_id  # noqa: B018 - imports are paid
    with offline_composer() as (composer, loader):
        started = time.perf_counter()
        for cell in composer.cells(handed_on):
            cell.run_id  # noqa: B018
        took = time.perf_counter() - started
        started = time.perf_counter()
        for overrides in handed_on[:20]:
            resolved(loader.load_configuration("config", overrides, run_mode=RunMode.RUN))
        return took, (time.perf_counter() - started) / 20, composer.by_hydra


def look(n: int) -> float:
    """Seconds for one look at n cells that have all been run."""
    with tempfile.TemporaryDirectory() as folder:
        sweep = SweepState(Path(folder), "many")
        keys = [f"{i:016x}-{i:08x}" for i in range(n)]
        for key in keys:
            sweep.save_cell(CellStatus(key=key, state="done", job="j/0", host="h", pid=1, started=now(), seconds=1.0))
        started = time.perf_counter()
        views = Watch(sweep, None).look(keys, [])
        assert all(view.state == "done" for view in views.values())
        return time.perf_counter() - started


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=10_000)
    n = parser.parse_args().cells
    took, each, asked = compose(grid(n))
    print(f"compose: {n} cells in {took:.1f} s, Hydra asked {asked} times; by Hydra alone {n * each:.0f} s")
    print(f"status:  {n} cells in {look(n):.1f} s")


if __name__ == "__main__":
    main()
