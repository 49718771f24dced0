"""A real SLURM of one node, started once; where that cannot be done the tests say why and are skipped."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from slow_workdir import SlowWorkdir, job_ids, wait_for

CLUSTER = Path(__file__).parent / "cluster.sh"


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    started = subprocess.run([str(CLUSTER), "up"], capture_output=True, text=True, check=False)
    if started.returncode != 0:
        pytest.skip(f"no SLURM here: {started.stderr.strip()}")
    yield
    subprocess.run([str(CLUSTER), "down"], capture_output=True, check=False)


@pytest.fixture
def workdir(tmp_path: Path, cluster: None) -> Iterator[SlowWorkdir]:
    yield SlowWorkdir(tmp_path)
    if ids := job_ids():
        subprocess.run(["scancel", *ids], check=False)
        wait_for(lambda: not job_ids())
