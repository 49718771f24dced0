"""A folder to run the command in, whose cells are slow or fail as they are told, and questions to SLURM."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from command import Workdir

SLOW_ROUNDING = '''
import os
import signal
import sys
import time
from pathlib import Path
from quantbench.core.component import Part, component
from quantbench.formats.quantize import quantize
from quantbench.rounding.base import Rounded


@component
class Slow(Part):
    """Nearest rounding that writes a line for each weight, and takes its time or fails as its name says."""

    name: str
    seconds: float

    def round(self, weight, stats, format):
        with Path(os.environ["ROUNDED"]).open("a") as file:
            file.write(self.name + "\\n")
        if not Path(os.environ["ROUNDED"]).with_name("mended").exists():
            if self.name.endswith("_slow"):
                time.sleep(self.seconds / 14)
            if self.name.endswith("_killed"):
                os.kill(os.getpid(), signal.SIGKILL)
            if self.name.endswith("_endless"):
                time.sleep(600)
            if self.name.endswith("_exits"):
                sys.exit(3)
            if self.name.endswith("_raises"):
                raise RuntimeError("boom")
        return Rounded(quantize(weight, format))
'''

RECIPE = """
_target_: quantbench.pipeline.recipe.Recipe
weight: {_target_: quantbench.formats.int.IntFormat, bits: 4, group_size: 16, symmetric: false}
rounding: {_target_: slow.Slow, name: "", seconds: 20.0}
policy: {_target_: quantbench.pipeline.recipe.Policy}
"""

NAME = "quantizer.rounding.name="

LAYERS = 14
"""Weights of the tiny model: a cell that was run once wrote so many lines."""


class SlowWorkdir(Workdir):
    """A folder with a recipe that is slow or fails as the name of its cell says."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        (folder / "slow.py").write_text(SLOW_ROUNDING)
        (folder / "conf" / "quantizer").mkdir(parents=True)
        self.recipe = folder / "conf" / "quantizer" / "slow.yaml"
        self.recipe.write_text(RECIPE)
        self.rounded = folder / "rounded.txt"

    def environment(self, outputs: Path | None = None, **extra: str) -> dict[str, str]:
        """See Workdir; with the slow rounding to be imported."""
        path = os.pathsep.join([str(self.folder), extra.pop("PYTHONPATH", "")])
        return super().environment(outputs, PYTHONPATH=path, ROUNDED=str(self.rounded), **extra)

    def grid(self, names: str, *more: str, cluster: str = "slurm") -> list[str]:
        """Arguments for cells of these names, comma-separated."""
        quick = ["cluster.poll_seconds=0.5", "cluster.grace_seconds=2"]
        return [
            "-m",
            f"--config-dir={self.folder / 'conf'}",
            "quantizer=slow",
            f"{NAME}{names}",
            f"cluster={cluster}",
            *quick,
            *more,
        ]

    def times(self) -> Counter[str]:
        """How many weights were rounded, by name of cell."""
        return Counter(self.rounded.read_text().split()) if self.rounded.exists() else Counter()

    def mend(self) -> None:
        """From now on nothing fails or takes its time."""
        (self.folder / "mended").touch()

    def written(self) -> dict[str, str]:
        """Manifest, results and tables of the only sweep, by path."""
        folder = self.outputs / "sweeps" / self.sweep
        found = [folder / "manifest.json", folder / "results.csv", *(folder / "tables").iterdir()]
        return {str(file): file.read_text() for file in found}

    @property
    def sweep(self) -> str:
        """The name of the only sweep."""
        (found,) = (self.outputs / "sweeps").iterdir()
        return found.name

    def states(self) -> dict[str, str]:
        """The state of each cell by its name, as `quantbench status` tells it."""
        return {
            next(o.removeprefix(NAME) for o in cell["overrides"] if o.startswith(NAME)): cell["state"]
            for cell in self.cells()
        }

    def cells(self) -> list[dict[str, Any]]:
        """What `quantbench status` tells of the only sweep."""
        found: list[dict[str, Any]] = json.loads(self.quantbench("status", self.sweep, "--json").stdout)["cells"]
        return found

    @property
    def tokens(self) -> list[str]:
        """The names of the submissions, the last one at the end."""
        records = self.outputs.glob("sweeps/*/state/jobs/*.json")
        return [path.stem for path in sorted(records, key=lambda path: path.stat().st_mtime)]

    def job_ids(self) -> list[str]:
        """Ids of the jobs that wait or run."""
        names = ",".join(self.tokens)
        return slurm("squeue", "-h", "-r", f"--name={names}", "-o", "%i").split() if names else []

    def job_states(self) -> set[str]:
        """States of the jobs of the last submission, ended ones too."""
        return set(slurm("squeue", "-h", "-r", "-t", "all", f"--name={self.tokens[-1]}", "-o", "%T").split())


def wait_for(condition: Callable[[], bool], seconds: float = 180) -> None:
    """Wait until something is so; fails the test if it does not come true in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.2)


def slurm(*command: str) -> str:
    """The output of a command of SLURM."""
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
