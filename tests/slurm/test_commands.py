"""Commands that end before their jobs, come twice, or are refused."""

from __future__ import annotations

import json
import signal

import pandas as pd
import pytest

from command import Done
from slow_workdir import LAYERS, SlowWorkdir, slurm, wait_for

pytestmark = pytest.mark.slurm


def ok(done: Done) -> str:
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stderr


def test_a_command_that_was_interrupted_or_killed_is_followed_up_by_the_same_one(workdir: SlowWorkdir) -> None:
    grid = workdir.grid("a_slow,b,c,d", "cluster.cells_per_job=2")
    driver = workdir.start(*grid)
    wait_for(lambda: workdir.times()["a_slow"] > 0)
    driver.send_signal(signal.SIGINT)
    done = driver.finish(60)
    assert done.returncode == 130, done.stderr
    assert "the jobs run on: the same command follows them again" in done.stderr
    driver = workdir.start(*grid)
    wait_for(lambda: "0 submitted" in driver.errors)
    driver.send_signal(signal.SIGKILL)
    assert driver.finish(60).returncode == -signal.SIGKILL
    workdir.mend()
    assert "0 submitted" in ok(workdir.run(*grid))
    assert set(workdir.states().values()) == {"done"}
    assert workdir.times() == dict.fromkeys(("a_slow", "b", "c", "d"), LAYERS)


def test_two_commands_at_once_share_the_cells_and_a_grid_that_grew_runs_only_new_ones(workdir: SlowWorkdir) -> None:
    grid = workdir.grid("a,b,c,d", "cluster.cells_per_job=2")
    drivers = [workdir.start(*grid) for _ in range(2)]
    said = [ok(driver.finish(240)) for driver in drivers]
    assert sum("4 submitted" in text for text in said) == 1
    assert workdir.times() == dict.fromkeys("abcd", LAYERS)
    more = workdir.grid("a,b,c,d,e", "cluster.cells_per_job=2")
    assert "5 cells, 4 finished, 0 on their way, 1 submitted" in ok(workdir.run(*more))
    assert workdir.times() == dict.fromkeys("abcde", LAYERS)


def test_detached_cells_are_those_that_were_submitted_whatever_becomes_of_the_yaml(workdir: SlowWorkdir) -> None:
    grid = workdir.grid("a,b", "cluster.cells_per_job=1", "+cluster.extra.hold=true")
    assert "detached" in ok(workdir.run(*grid, "detach=true"))
    assert workdir.states() == {"a": "queued", "b": "queued"}
    workdir.recipe.write_text(workdir.recipe.read_text().replace("bits: 4", "bits: 2"))
    slurm("scontrol", "release", *workdir.job_ids())
    wait_for(lambda: not workdir.job_ids())
    assert workdir.states() == {"a": "done", "b": "done"}
    records = [json.loads(path.read_text()) for path in workdir.outputs.glob("runs/*/record.json")]
    assert {r["config"]["quantizer"]["weight"]["bits"] for r in records if r["layers"]} == {4}
    assert workdir.quantbench("collate", workdir.sweep).returncode == 0
    table = pd.read_csv(workdir.outputs / "sweeps" / workdir.sweep / "results.csv")
    assert set(table.status) == {"done"}


def test_cancelled_cells_are_submitted_again_by_retry(workdir: SlowWorkdir) -> None:
    ok(workdir.run(*workdir.grid("a,b_slow,c"), "detach=true"))
    wait_for(lambda: workdir.times()["b_slow"] > 0)
    cancelled = workdir.quantbench("cancel", workdir.sweep)
    assert "2 open cells cancelled" in cancelled.stdout
    wait_for(lambda: not workdir.job_ids())
    assert workdir.states() == {"a": "done", "b_slow": "cancelled", "c": "cancelled"}
    assert workdir.quantbench("status", workdir.sweep).returncode == 1
    workdir.mend()
    ok(workdir.quantbench("retry", workdir.sweep))
    assert set(workdir.states().values()) == {"done"}
    assert workdir.times()["a"] == LAYERS


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
    assert not workdir.job_ids()
