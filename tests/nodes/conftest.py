"""A SLURM of three nodes for a whole test run; where it cannot be had the tests say why and are skipped."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from machines import LAB, SCRIPT, NodesWorkdir
from slow_workdir import slurm, wait_for


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    """Three nodes and two login nodes."""
    started = subprocess.run([str(SCRIPT), "up"], capture_output=True, text=True, check=False)
    if started.returncode != 0:
        subprocess.run([str(SCRIPT), "down"], capture_output=True, check=False)
        pytest.skip(f"no nodes here: {started.stderr.strip()}")
    before = os.environ.get("SLURM_CONF")
    os.environ["SLURM_CONF"] = str(LAB / "slurm.conf")
    yield
    if before is None:
        del os.environ["SLURM_CONF"]
    else:
        os.environ["SLURM_CONF"] = before
    subprocess.run([str(SCRIPT), "down"], capture_output=True, check=False)


@pytest.fixture
def nodes(tmp_path: Path, cluster: None) -> Iterator[NodesWorkdir]:
    """A folder whose output folder is on the simulated network file system; every node is up again afterwards."""
    workdir = NodesWorkdir(tmp_path)
    yield workdir
    slurm("scancel", f"--user={os.environ.get('USER', 'root')}")
    for command in workdir.commands:
        command.end()
    workdir.all_up()
    wait_for(lambda: not slurm("squeue", "-h"), 60)
    shutil.move(workdir.outputs, tmp_path / "outputs")  # to be looked at where a test failed
