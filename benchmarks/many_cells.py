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

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig

from quantbench.config.compose import CellMaker, config_dir, resolved
from quantbench.config.factored import Composer
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
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()

        def load(overrides: list[str]) -> DictConfig:
            found: DictConfig = loader.load_configuration("config", overrides, run_mode=RunMode.RUN)
            return found

        _made(CellMaker(), Composer(loader, load), cells[0])  # imports are paid
        started = time.perf_counter()
        composer, make = Composer(loader, load), CellMaker()
        for cell in cells:
            _made(make, composer, cell)
        took = time.perf_counter() - started
        started = time.perf_counter()
        for cell in cells[:20]:
            resolved(load(cell))
        return took, (time.perf_counter() - started) / 20, composer.by_hydra


def _made(make: CellMaker, composer: Composer, cell: list[str]) -> str:
    plain, choices = composer.compose(cell)
    return make(plain, cell, choices).run_id


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
