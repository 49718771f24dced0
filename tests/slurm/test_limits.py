"""Jobs that come to their time limit, which SLURM counts in minutes."""

from __future__ import annotations

import json

import pytest

from slow_workdir import LAYERS, SlowWorkdir

pytestmark = pytest.mark.slurm


def test_a_cell_too_long_for_any_job_is_given_up_and_the_others_are_done(workdir: SlowWorkdir) -> None:
    done = workdir.run(*workdir.grid("a,b_endless,c", "cluster.minutes=1"))
    assert done.returncode == 1, done.stderr
    assert workdir.states() == {"a": "done", "b_endless": "failed", "c": "done"}
    assert "interrupted 3 times without finishing any part of it" in done.stderr
    assert "cluster.minutes" in done.stderr


def test_a_time_limit_shorter_than_the_cells_together_ends_in_all_done(workdir: SlowWorkdir) -> None:
    names = [f"{letter}_slow" for letter in "abcdefghijklmnop"]
    more = ("quantizer.rounding.seconds=4", "cluster.cells_per_job=16", "cluster.minutes=1")
    grid = workdir.grid(",".join(names), *more)
    done = workdir.run(*grid)
    assert done.returncode == 0, done.stderr
    assert "submitted in 1 job\n" in done.stderr
    times = workdir.times()
    starts = json.loads(next(workdir.outputs.glob("sweeps/*/state/jobs/*/0.starts.json")).read_text())
    assert len(starts) > 1
    # Every start but the first repeats at most the one cell that was cut off.
    assert sum(times.values()) <= (len(names) + len(starts) - 1) * LAYERS
    assert workdir.states() == dict.fromkeys(names, "done")
