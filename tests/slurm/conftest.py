"""A real SLURM of one node for a whole test run; where it cannot be had the tests say why and are skipped."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from slow_workdir import SlowWorkdir, wait_for

CLUSTER = Path(__file__).parent / "cluster.sh"


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """SLURM: the first process that needs it starts it, the last one stops it."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    users, own = shared / "slurm-users", shared / "slurm-users" / str(os.getpid())
    with FileLock(shared / "slurm.lock"):
        started = subprocess.run([str(CLUSTER), "up"], capture_output=True, text=True, check=False)
        if started.returncode != 0:
            pytest.skip(f"no SLURM here: {started.stderr.strip()}")
        users.mkdir(exist_ok=True)
        own.touch()
    yield
    with FileLock(shared / "slurm.lock"):
        own.unlink()
        if not any(users.iterdir()):
            subprocess.run([str(CLUSTER), "down"], capture_output=True, check=False)


@pytest.fixture
def workdir(tmp_path: Path, cluster: None) -> Iterator[SlowWorkdir]:
    workdir = SlowWorkdir(tmp_path)
    yield workdir
    if ids := workdir.job_ids():
        subprocess.run(["scancel", *ids], check=False)
        wait_for(lambda: not workdir.job_ids())
