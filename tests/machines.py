"""The machines that nodes.sh starts, and a folder to run the command in on one of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from slow_workdir import NAME, SlowWorkdir, slurm, wait_for

SCRIPT = Path(__file__).parent / "nodes" / "nodes.sh"
LAB = Path(os.environ.get("QUANTBENCH_NODES", "/tmp/quantbench-nodes"))
NODES = ("n1", "n2", "n3")
GRACE = 4
"""Seconds a job must be out of sight; shorter than the machines believe what they know of names."""


def machines(*words: str) -> None:
    """Have nodes.sh do something."""
    subprocess.run([str(SCRIPT), *words], check=True)


class Running:
    """A command on a machine; its output goes to files."""

    def __init__(self, workdir: NodesWorkdir, machine: str, line: list[str], environment: dict[str, str]) -> None:
        number = len(workdir.commands)
        self._files = [workdir.folder / f"{machine}-{number}.{kind}" for kind in ("out", "err")]
        with self._files[0].open("w") as out, self._files[1].open("w") as err:
            self._process = subprocess.Popen(
                [str(SCRIPT), "in", machine, *line], stdout=out, stderr=err, env=environment, cwd=workdir.folder
            )

    @property
    def errors(self) -> str:
        """What it has said so far on stderr."""
        return self._files[1].read_text()

    def wait(self, seconds: float = 300) -> int:
        """Wait until it ends; its status."""
        return self._process.wait(seconds)

    def ok(self) -> str:
        """Wait until it ends well; what it said on stderr."""
        assert self.wait() == 0, self.errors
        return self.errors

    def end(self) -> None:
        """Kill it if it still runs."""
        self._process.kill()
        self._process.wait()


class NodesWorkdir(SlowWorkdir):
    """A folder on the disk of all machines, with outputs on the file system that they share.

    The test itself reads the outputs as the file server has them.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.name = folder.name
        self.outputs = LAB / "server" / self.name
        self.commands: list[Running] = []

    def on(self, machine: str, *arguments: str, python: str = sys.executable, **extra: str) -> Running:
        """Start the command on a machine."""
        environment = self.environment(LAB / "shared" / self.name, **extra)
        command = Running(self, machine, [python, "-m", "quantbench", *self.arguments(*arguments)], environment)
        self.commands.append(command)
        return command

    def cells_of(self, names: str, *more: str, grace: int = GRACE) -> list[str]:
        """Arguments for cells of these names, one a job."""
        quick = [option for option in self.grid(names, *more) if not option.startswith("cluster.grace_seconds")]
        return [*quick, "cluster.cells_per_job=1", f"cluster.grace_seconds={grace}"]

    def node_of(self, name: str) -> str:
        """The node that runs a cell; "" if none does."""
        for line in slurm("squeue", "-h", "-r", "-t", "R", "-o", "%i %N").splitlines():
            job, node = line.split()
            if self._index(name) == int(job.partition("_")[2] or 0):
                return node
        return ""

    def _index(self, name: str) -> int:
        """Of the job that has a cell, in the last submission."""
        (state,) = self.outputs.glob("sweeps/*/state")
        chunks = [path for path in state.glob(f"jobs/{self.tokens[-1]}/*.json") if path.stem.isdigit()]
        (found,) = [path for path in chunks if f'{NAME}{name}"' in path.read_text()]
        return int(found.stem)

    def statuses(self) -> list[dict[str, Any]]:
        """What the state files of all cells say."""
        return [json.loads(path.read_text()) for path in self.outputs.glob("sweeps/*/state/cells/*.json")]

    def all_up(self) -> None:
        """Start the nodes that are down, and wait until all take jobs."""
        for node in NODES:
            if not (LAB / f"{node}.pid").exists():
                machines("release", node)
                machines("start", node)
        wait_for(lambda: slurm("sinfo", "-h", "-N", "-t", "idle,alloc,mix,comp", "-o", "%N").split() == list(NODES), 60)
