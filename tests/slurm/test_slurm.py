"""Sweeps on a real SLURM: what fails, dies, is cancelled or preempted costs what it must and no more."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time

import pandas as pd
import psutil
import pytest

from slow_workdir import LAYERS, SlowWorkdir, job_ids, job_states, slurm, wait_for

pytestmark = pytest.mark.slurm


def ok(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stderr


def states(workdir: SlowWorkdir) -> dict[str, str]:
    """The state of each cell by its name, as `quantbench status` tells it."""
    told = json.loads(workdir.quantbench("status", workdir.sweep, "--json").stdout)
    name = "quantizer.rounding.name="
    return {
        next(o.removeprefix(name) for o in cell["overrides"] if o.startswith(name)): cell["state"]
        for cell in told["cells"]
    }


def token(workdir: SlowWorkdir) -> str:
    """The name of the last submission."""
    records = workdir.outputs.glob("sweeps/*/state/jobs/*.json")
    return max(records, key=lambda path: path.stat().st_mtime).stem


def processes(workdir: SlowWorkdir) -> list[psutil.Process]:
    """The workers and their children, parents first."""
    found = [p for p in psutil.process_iter(["cmdline"]) if "submitit.core._submit" in (p.info["cmdline"] or ())]
    return sorted((p for p in found if str(workdir.folder) in " ".join(p.info["cmdline"])), key=lambda p: p.pid)


def running(workdir: SlowWorkdir, name: str) -> bool:
    return workdir.times()[name] > 0


def test_what_fails_costs_one_cell_and_the_same_command_runs_only_that(workdir: SlowWorkdir) -> None:
    grid = workdir.grid("a,b_raises,c,d_killed,e_exits,f", "cluster.cells_per_job=3")
    done = workdir.run(*grid)
    assert done.returncode == 1
    assert "3 of 6 cells failed" in done.stderr
    assert "RuntimeError: boom" in done.stderr
    assert "ended by signal 9 (SIGKILL)" in done.stderr
    expected = {"a": "done", "b_raises": "failed", "c": "done", "d_killed": "failed", "e_exits": "failed", "f": "done"}
    assert states(workdir) == expected
    assert job_states(token(workdir)) == {"FAILED"}
    (failed,) = [c for c in _cells(workdir) if "name=b_raises" in " ".join(c["overrides"])]
    assert 'raise RuntimeError("boom")' in workdir.quantbench("logs", failed["cell"]).stdout
    table = pd.read_csv(workdir.outputs / "sweeps" / workdir.sweep / "results.csv")
    assert set(table[table.error.notna()].variant.str.contains("_")) == {True}
    workdir.mend()
    again = ok(workdir.run(*grid))
    assert "6 cells, 3 finished, 0 on their way, 3 submitted" in again
    assert states(workdir) == dict.fromkeys(expected, "done")
    once = dict.fromkeys(("a", "c", "f"), LAYERS)
    assert workdir.times() == {**once, **dict.fromkeys(("b_raises", "d_killed", "e_exits"), LAYERS + 1)}
    jobs = len(list(workdir.outputs.glob("sweeps/*/state/jobs/*.json")))
    written = workdir.written()
    assert "6 finished, 0 on their way, 0 submitted" in ok(workdir.run(*grid))
    assert len(list(workdir.outputs.glob("sweeps/*/state/jobs/*.json"))) == jobs
    assert workdir.written() == written


def test_a_killed_command_is_followed_up_by_the_same_one(workdir: SlowWorkdir) -> None:
    grid = workdir.grid("a,b,c,d", "quantizer.rounding.seconds=4", "cluster.cells_per_job=2")
    driver = workdir.start(*grid)
    wait_for(lambda: len(workdir.times()) > 0)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    said = ok(workdir.run(*grid))
    assert "0 submitted" in said
    assert states(workdir) == dict.fromkeys("abcd", "done")
    assert workdir.times() == dict.fromkeys("abcd", LAYERS)


def test_two_commands_at_once_share_the_cells(workdir: SlowWorkdir) -> None:
    grid = workdir.grid("a,b,c,d", "quantizer.rounding.seconds=2", "cluster.cells_per_job=1")
    drivers = [workdir.start(*grid, errors=subprocess.PIPE) for _ in range(2)]
    said = [driver.communicate(timeout=180)[1] for driver in drivers]
    assert [driver.returncode for driver in drivers] == [0, 0], said
    assert sum("4 submitted" in text for text in said) == 1
    assert workdir.times() == dict.fromkeys("abcd", LAYERS)


def test_detached_cells_are_those_that_were_submitted_whatever_becomes_of_the_yaml(workdir: SlowWorkdir) -> None:
    slurm("sbatch", "--wrap=sleep 300", "--cpus-per-task=8", "--output=/dev/null")
    wait_for(lambda: bool(slurm("squeue", "-h", "-t", "R", "-o", "%i")))
    (blocker,) = job_ids()
    grid = workdir.grid("a,b", "cluster.cells_per_job=1")
    started = time.monotonic()
    assert "detached" in ok(workdir.run(*grid, "detach=true"))
    assert time.monotonic() - started < 60
    assert states(workdir) == {"a": "queued", "b": "queued"}
    workdir.recipe.write_text(workdir.recipe.read_text().replace("bits: 4", "bits: 2"))
    slurm("scancel", blocker)
    wait_for(lambda: states(workdir) == {"a": "done", "b": "done"})
    records = [json.loads(path.read_text()) for path in workdir.outputs.glob("runs/*/record.json")]
    assert {r["config"]["quantizer"]["weight"]["bits"] for r in records if r["layers"]} == {4}
    assert workdir.quantbench("collate", workdir.sweep).returncode == 0
    table = pd.read_csv(workdir.outputs / "sweeps" / workdir.sweep / "results.csv")
    assert set(table.status) == {"done"}


def test_a_grid_that_grew_runs_only_its_new_cells(workdir: SlowWorkdir) -> None:
    ok(workdir.run(*workdir.grid("a,b")))
    assert "3 cells, 2 finished, 0 on their way, 1 submitted" in ok(workdir.run(*workdir.grid("a,b,c")))
    assert workdir.times() == dict.fromkeys("abc", LAYERS)


def test_a_killed_worker_loses_what_it_had_and_the_same_command_repeats_that(workdir: SlowWorkdir) -> None:
    grid = workdir.grid("a,b,c", "quantizer.rounding.seconds=4")
    driver = workdir.start(*grid, errors=subprocess.PIPE)
    wait_for(lambda: running(workdir, "b"))
    for process in processes(workdir):
        process.kill()
    said = driver.communicate(timeout=120)[1]
    assert driver.returncode == 1
    assert "lost: job" in said
    assert states(workdir) == {"a": "done", "b": "lost", "c": "lost"}
    ok(workdir.run(*grid))
    times = workdir.times()
    assert (times["a"], times["c"]) == (LAYERS, LAYERS)
    assert LAYERS < times["b"] < 2 * LAYERS + 1
    assert states(workdir) == dict.fromkeys("abc", "done")


def test_cancelled_cells_are_submitted_again_by_retry(workdir: SlowWorkdir) -> None:
    grid = workdir.grid("a,b,c", "quantizer.rounding.seconds=4")
    ok(workdir.run(*grid, "detach=true"))
    wait_for(lambda: running(workdir, "b"))
    cancelled = workdir.quantbench("cancel", workdir.sweep)
    assert "2 open cells cancelled" in cancelled.stdout
    wait_for(lambda: not job_ids())
    assert states(workdir) == {"a": "done", "b": "cancelled", "c": "cancelled"}
    assert workdir.quantbench("status", workdir.sweep).returncode == 1
    ok(workdir.quantbench("retry", workdir.sweep))
    assert states(workdir) == dict.fromkeys("abc", "done")
    assert workdir.times()["a"] == LAYERS


def test_a_job_cancelled_behind_our_back_is_noticed(workdir: SlowWorkdir) -> None:
    driver = workdir.start(*workdir.grid("a,b", "quantizer.rounding.seconds=6"), errors=subprocess.PIPE)
    wait_for(lambda: running(workdir, "a"))
    slurm("scancel", *job_ids())
    said = driver.communicate(timeout=120)[1]
    assert driver.returncode == 1
    assert "the job was stopped" in said
    assert states(workdir) == {"a": "lost", "b": "lost"}


def test_a_requeued_job_goes_on_where_it_was(workdir: SlowWorkdir) -> None:
    driver = workdir.start(*workdir.grid("a,b,c", "quantizer.rounding.seconds=4"), errors=subprocess.PIPE)
    wait_for(lambda: running(workdir, "b"))
    (job,) = job_ids()
    slurm("scontrol", "requeue", job)
    said = driver.communicate(timeout=180)[1]
    assert driver.returncode == 0, said
    times = workdir.times()
    assert (times["a"], times["c"]) == (LAYERS, LAYERS)
    assert times["b"] <= 2 * LAYERS


def test_a_preempted_job_goes_on_where_it_was(workdir: SlowWorkdir) -> None:
    grid = workdir.grid("a,b,c", "quantizer.rounding.seconds=4", "cluster.partition=low")
    driver = workdir.start(*grid, errors=subprocess.PIPE)
    wait_for(lambda: running(workdir, "b"))
    slurm("srun", "--partition=high", "--cpus-per-task=8", "--ntasks=1", "sleep", "1")
    said = driver.communicate(timeout=180)[1]
    assert driver.returncode == 0, said
    times = workdir.times()
    assert (times["a"], times["c"]) == (LAYERS, LAYERS)
    assert LAYERS < times["b"] <= 2 * LAYERS


def test_a_time_limit_shorter_than_the_cells_together_ends_in_all_done(workdir: SlowWorkdir) -> None:
    grid = workdir.grid("a,b,c,d,e,f", "quantizer.rounding.seconds=15", "cluster.minutes=1")
    done = workdir.run(*grid)
    assert "submitted in 1 job\n" in ok(done)
    times = workdir.times()
    starts = json.loads(next(workdir.outputs.glob("sweeps/*/state/jobs/*/0.starts.json")).read_text())
    # Every start but the first repeats at most the one cell that was cut off.
    assert sum(times.values()) <= (6 + len(starts) - 1) * LAYERS
    assert states(workdir) == dict.fromkeys("abcdef", "done")


def test_a_cell_too_long_for_any_job_is_given_up_and_the_others_are_done(workdir: SlowWorkdir) -> None:
    done = workdir.run(*workdir.grid("a,b_endless,c", "cluster.minutes=1"))
    assert done.returncode == 1
    assert states(workdir) == {"a": "done", "b_endless": "failed", "c": "done"}
    assert "interrupted 3 times without finishing any part of it" in done.stderr
    assert "cluster.minutes" in done.stderr


def test_a_cluster_that_does_not_answer_for_a_while_changes_nothing(workdir: SlowWorkdir) -> None:
    broken, tools = workdir.folder / "broken", workdir.folder / "bin"
    tools.mkdir()
    real = subprocess.run(["which", "squeue"], capture_output=True, text=True, check=True).stdout.strip()
    (tools / "squeue").write_text(
        f'#!/bin/sh\n[ -e {broken} ] && {{ echo "down for a while" >&2; exit 1; }}\nexec {real} "$@"\n'
    )
    (tools / "squeue").chmod(0o755)
    os.environ["PATH"], before = f"{tools}{os.pathsep}{os.environ['PATH']}", os.environ["PATH"]
    try:
        driver = workdir.start(*workdir.grid("a,b", "quantizer.rounding.seconds=4"), errors=subprocess.PIPE)
        wait_for(lambda: running(workdir, "a"))
        broken.touch()
        wait_for(lambda: running(workdir, "b"))
        time.sleep(4)
        broken.unlink()
        said = driver.communicate(timeout=120)[1]
    finally:
        os.environ["PATH"] = before
    assert driver.returncode == 0, said
    assert "squeue failed (1): down for a while" in said
    assert workdir.times() == dict.fromkeys("ab", LAYERS)


def test_ctrl_c_leaves_the_jobs_alone(workdir: SlowWorkdir) -> None:
    grid = workdir.grid("a,b", "quantizer.rounding.seconds=4")
    driver = workdir.start(*grid, errors=subprocess.PIPE)
    wait_for(lambda: running(workdir, "a"))
    driver.send_signal(signal.SIGINT)
    said = driver.communicate(timeout=60)[1]
    assert driver.returncode == 130
    assert "the jobs run on: the same command follows them again" in said
    ok(workdir.run(*grid))
    assert workdir.times() == dict.fromkeys("ab", LAYERS)


def test_a_full_disk_loses_nothing(workdir: SlowWorkdir) -> None:
    disk = workdir.folder / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], check=False)
    if mounted.returncode != 0:
        pytest.skip("a small file system cannot be mounted here")
    try:
        grid = workdir.grid("a,b,c,d", f"output_dir={disk}", "cluster.cells_per_job=4")
        done = workdir.run(*grid)
        assert done.returncode != 0
        assert "No space left" in done.stderr or "lost" in done.stderr, done.stderr
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        before = {path: path.read_bytes() for path in disk.glob("runs/*/scores/*.json")}
        ok(workdir.run(*grid))
        assert {path: path.read_bytes() for path in before} == before
    finally:
        wait_for(lambda: not job_ids())
        subprocess.run(["umount", "-l", str(disk)], check=False)


def test_refused_options_are_said_before_anything_is_submitted(workdir: SlowWorkdir) -> None:
    for option, message in (
        ("cluster.partition=nowhere", "the jobs were refused"),
        ("cluster.cpus=0", "cluster.cpus=0"),
        ("cluster.partitoin=low", "cluster.partitoin: no such option. Did you mean 'partition'?"),
        ("cluster.group_by=[modle]", "cluster.group_by: 'modle' is no group"),
    ):
        done = workdir.run(*workdir.grid("a,b", option))
        assert done.returncode == 2, done.stderr
        assert message in done.stderr
        assert "Traceback" not in done.stderr
    assert not job_ids()


def test_all_launchers_give_the_same_numbers(workdir: SlowWorkdir) -> None:
    chosen = ["quantizer=rtn,gptq,awq", "quantizer.weight.group_size=16"]
    tables = []
    for cluster, options in (
        ("inprocess", []),
        ("local", ["cluster.workers=2", "cluster.poll_seconds=0.5"]),
        ("slurm", ["cluster.cells_per_job=2", "cluster.poll_seconds=1"]),
    ):
        outputs = workdir.folder / cluster
        ok(workdir.run("-m", *chosen, f"cluster={cluster}", *options, outputs=outputs))
        (table,) = outputs.glob("sweeps/*/results.csv")
        tables.append(table.read_bytes())
    assert tables[0] == tables[1] == tables[2]


@pytest.mark.model
def test_the_packaged_model_gives_the_same_tables_with_all_launchers(workdir: SlowWorkdir) -> None:
    chosen = ["quantizer=gptq,awq", "calib=wiki_sample,code_sample", "scale=smoke", "threads=1"]
    found = []
    for cluster, option in (
        ("slurm", ["cluster.cells_per_job=2"]),
        ("local", ["cluster.workers=2"]),
        ("inprocess", []),
    ):
        outputs = workdir.folder / cluster
        # The cache of the user, not that of the folder: the model is 93 MB.
        cache = os.environ.get("QUANTBENCH_CACHE", "")
        ok(
            workdir.run(
                "-m", *chosen, f"cluster={cluster}", *option, base=False, outputs=outputs, QUANTBENCH_CACHE=cache
            )
        )
        tables = sorted(outputs.glob("sweeps/*/tables/*"))
        found.append({path.name: path.read_bytes() for path in [*tables, *outputs.glob("sweeps/*/results.csv")]})
    assert len(found[0]) > 1
    assert found[0] == found[1] == found[2]


def _cells(workdir: SlowWorkdir) -> list[dict[str, str]]:
    cells: list[dict[str, str]] = json.loads(workdir.quantbench("status", workdir.sweep, "--json").stdout)["cells"]
    return cells
