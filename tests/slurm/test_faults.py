"""What fails, dies, is cancelled or preempted costs what it must and no more."""

from __future__ import annotations

import os
import shutil
import subprocess
import time

import pandas as pd
import psutil
import pytest

from command import Done
from slow_workdir import LAYERS, SlowWorkdir, slurm, wait_for

pytestmark = pytest.mark.slurm


def ok(done: Done) -> str:
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stderr


def processes(workdir: SlowWorkdir) -> list[psutil.Process]:
    """The workers and their children, parents first."""
    found = [p for p in psutil.process_iter(["cmdline"]) if "submitit.core._submit" in (p.info["cmdline"] or ())]
    return sorted((p for p in found if str(workdir.folder) in " ".join(p.info["cmdline"])), key=lambda p: p.pid)


def test_what_fails_costs_one_cell_and_the_same_command_runs_only_that(workdir: SlowWorkdir) -> None:
    grid = workdir.grid("a,b_raises,c,d_killed,e_exits,f", "cluster.cells_per_job=3")
    done = workdir.run(*grid)
    assert done.returncode == 1
    assert "3 of 6 cells failed" in done.stderr
    assert "RuntimeError: boom" in done.stderr
    assert "ended by signal 9 (SIGKILL)" in done.stderr
    expected = {"a": "done", "b_raises": "failed", "c": "done", "d_killed": "failed", "e_exits": "failed", "f": "done"}
    assert workdir.states() == expected
    wait_for(lambda: not workdir.job_ids())
    assert workdir.job_states() == {"FAILED"}
    (failed,) = [cell for cell in workdir.cells() if "name=b_raises" in " ".join(cell["overrides"])]
    assert 'raise RuntimeError("boom")' in workdir.quantbench("logs", failed["cell"]).stdout
    table = pd.read_csv(workdir.outputs / "sweeps" / workdir.sweep / "results.csv")
    assert set(table[table.error.notna()].variant.str.contains("_")) == {True}
    workdir.mend()
    assert "6 cells, 3 finished, 0 on their way, 3 submitted" in ok(workdir.run(*grid))
    assert workdir.states() == dict.fromkeys(expected, "done")
    once = dict.fromkeys(("a", "c", "f"), LAYERS)
    assert workdir.times() == {**once, **dict.fromkeys(("b_raises", "d_killed", "e_exits"), LAYERS + 1)}
    jobs, written = len(workdir.tokens), workdir.written()
    assert "6 finished, 0 on their way, 0 submitted" in ok(workdir.run(*grid))
    assert len(workdir.tokens) == jobs
    assert workdir.written() == written


def test_a_killed_worker_loses_what_it_had_and_the_same_command_repeats_that(workdir: SlowWorkdir) -> None:
    grid = workdir.grid("a,b_slow,c")
    driver = workdir.start(*grid)
    wait_for(lambda: workdir.times()["b_slow"] > 0)
    for process in processes(workdir):
        process.kill()
    done = driver.finish(180)
    assert done.returncode == 1
    assert "lost: job" in done.stderr
    assert workdir.states() == {"a": "done", "b_slow": "lost", "c": "lost"}
    workdir.mend()
    ok(workdir.run(*grid))
    times = workdir.times()
    assert (times["a"], times["c"]) == (LAYERS, LAYERS)
    assert LAYERS < times["b_slow"] <= 2 * LAYERS
    assert set(workdir.states().values()) == {"done"}


def test_a_job_cancelled_behind_our_back_is_noticed(workdir: SlowWorkdir) -> None:
    driver = workdir.start(*workdir.grid("a_slow,b"))
    wait_for(lambda: workdir.times()["a_slow"] > 0)
    slurm("scancel", *workdir.job_ids())
    done = driver.finish(180)
    assert done.returncode == 1
    assert "the job was stopped" in done.stderr
    assert workdir.states() == {"a_slow": "lost", "b": "lost"}


def test_a_requeued_job_goes_on_where_it_was(workdir: SlowWorkdir) -> None:
    driver = workdir.start(*workdir.grid("a,b_slow,c"))
    wait_for(lambda: workdir.times()["b_slow"] > 0)
    (job,) = workdir.job_ids()
    slurm("scontrol", "requeue", job)
    wait_for(lambda: workdir.job_states() == {"PENDING"})
    workdir.mend()
    ok(driver.finish(240))
    times = workdir.times()
    assert (times["a"], times["c"]) == (LAYERS, LAYERS)
    assert times["b_slow"] <= 2 * LAYERS


def test_a_preempted_job_goes_on_where_it_was(workdir: SlowWorkdir) -> None:
    driver = workdir.start(*workdir.grid("a,b_slow,c", "cluster.partition=low", "+cluster.extra.gres='slot:1'"))
    wait_for(lambda: workdir.times()["b_slow"] > 0)
    slurm("srun", "--partition=high", "--gres=slot:1", "--ntasks=1", "true")
    workdir.mend()
    ok(driver.finish(240))
    times = workdir.times()
    assert (times["a"], times["c"]) == (LAYERS, LAYERS)
    assert LAYERS < times["b_slow"] <= 2 * LAYERS


def test_a_cluster_that_does_not_answer_for_a_while_changes_nothing(workdir: SlowWorkdir) -> None:
    broken, tools = workdir.folder / "broken", workdir.folder / "bin"
    tools.mkdir()
    (tools / "squeue").write_text(
        f'#!/bin/sh\n[ -e {broken} ] && {{ echo "down for a while" >&2; exit 1; }}\n'
        f'exec {shutil.which("squeue")} "$@"\n'
    )
    (tools / "squeue").chmod(0o755)
    path = f"{tools}{os.pathsep}{os.environ['PATH']}"
    driver = workdir.start(*workdir.grid("a_slow,b"), PATH=path)
    wait_for(lambda: workdir.times()["a_slow"] > 0)
    broken.touch()
    wait_for(lambda: "down for a while" in driver.errors)
    time.sleep(3)  # longer than a job that is not seen may still have something to say
    assert workdir.times()["b"] == 0
    workdir.mend()
    broken.unlink()
    said = ok(driver.finish(180))
    assert "squeue failed (1): down for a while" in said
    assert workdir.times() == {"a_slow": LAYERS, "b": LAYERS}


def test_a_full_disk_loses_nothing(workdir: SlowWorkdir) -> None:
    disk = workdir.folder / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], check=False)
    if mounted.returncode != 0:
        pytest.skip("a small file system cannot be mounted here")
    workdir.outputs = disk
    try:
        grid = workdir.grid("a,b,c,d", "cluster.cells_per_job=4")
        done = workdir.run(*grid)
        assert done.returncode != 0
        assert "No space left" in done.stderr or "lost" in done.stderr, done.stderr
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        before = {path: path.read_bytes() for path in disk.glob("runs/*/scores/*.json")}
        ok(workdir.run(*grid))
        assert {path: path.read_bytes() for path in before} == before
    finally:
        wait_for(lambda: not workdir.job_ids())
        subprocess.run(["umount", "-l", str(disk)], check=False)
