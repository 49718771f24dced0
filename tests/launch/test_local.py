"""Workers on this machine: same numbers, a dead process costs one cell, and sweeps outlive their command."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import psutil
import pytest

from quantbench.core.environment import pick_device
from quantbench.core.errors import ConfigError
from quantbench.launch import local
from quantbench.launch.state import SweepState
from slow_workdir import LAYERS, SlowWorkdir, wait_for


@pytest.fixture
def slow(tmp_path: Path) -> SlowWorkdir:
    return SlowWorkdir(tmp_path)


def workers(workdir: SlowWorkdir) -> list[psutil.Process]:
    """Controllers and workers of this workdir."""
    found = [p for p in psutil.process_iter(["cmdline"]) if "submitit" in " ".join(p.info["cmdline"] or ())]
    return [p for p in found if str(workdir.folder) in " ".join(p.info["cmdline"])]


@pytest.mark.slow
def test_a_killed_process_costs_its_cell_and_two_workers_share_the_rest(slow: SlowWorkdir) -> None:
    grid = slow.grid("a,b_killed,c,d_raises", "cluster.workers=2", cluster="local")
    done = slow.run(*grid)
    assert done.returncode == 1
    assert "ended by signal 9 (SIGKILL)" in done.stderr
    assert slow.states() == {"a": "done", "b_killed": "failed", "c": "done", "d_raises": "failed"}
    assert slow.quantbench("status", slow.sweep).returncode == 1
    slow.mend()
    again = slow.run(*grid)
    assert again.returncode == 0, again.stderr
    assert "4 cells, 2 finished, 0 on their way, 2 submitted" in again.stderr
    assert set(slow.states().values()) == {"done"}
    assert slow.times()["a"] == slow.times()["c"] == LAYERS
    written = slow.written()
    once_more = slow.run(*grid)
    assert once_more.returncode == 0, once_more.stderr
    assert "everything was done before" in once_more.stderr
    assert "pending" not in once_more.stdout
    assert slow.written() == written


@pytest.mark.slow
def test_a_cell_that_another_process_has_is_waited_for(slow: SlowWorkdir) -> None:
    grid = slow.grid("a_raises", cluster="local")
    assert slow.run(*grid).returncode == 1
    slow.mend()
    (cell,) = slow.cells()
    sweep = SweepState(slow.outputs, slow.sweep)
    with sweep.claim(cell["cell"], wait=False):
        command = slow.start(*grid)
        wait_for(lambda: any("waiting for them" in log.read_text() for log in sweep.folder.glob("jobs/*/log/*/*.err")))
        assert slow.times()["a_raises"] == 1
    done = command.finish(120)
    assert done.returncode == 0, done.stderr
    assert slow.times()["a_raises"] == 1 + LAYERS


@pytest.mark.slow
def test_results_that_were_removed_are_made_again(slow: SlowWorkdir) -> None:
    grid = slow.grid("a", cluster="local")
    assert slow.run(*grid).returncode == 0
    (cell,) = slow.cells()
    shutil.rmtree(slow.outputs / "runs" / cell["run"])
    again = slow.run(*grid)
    assert again.returncode == 0, again.stderr
    assert slow.times()["a"] == 2 * LAYERS
    assert list(slow.outputs.glob(f"runs/{cell['run']}/scores/*.json"))


@pytest.mark.slow
def test_a_detached_sweep_is_watched_cancelled_and_taken_up_again(slow: SlowWorkdir) -> None:
    grid = slow.grid("a_slow,b", cluster="local")
    detached = slow.run(*grid, "detach=true")
    assert detached.returncode == 0, detached.stderr
    wait_for(lambda: slow.times()["a_slow"] > 0)
    assert slow.states() == {"a_slow": "running", "b": "queued"}
    assert "2 open cells cancelled" in slow.quantbench("cancel", slow.sweep).stdout
    wait_for(lambda: not workers(slow))
    assert slow.states() == {"a_slow": "cancelled", "b": "cancelled"}
    slow.mend()
    retried = slow.quantbench("retry", slow.sweep)
    assert retried.returncode == 0, retried.stderr
    assert slow.states() == {"a_slow": "done", "b": "done"}
    assert slow.times()["b"] == LAYERS


@pytest.mark.slow
def test_a_cell_whose_text_changed_after_submission_is_refused(slow: SlowWorkdir) -> None:
    detached = slow.run(*slow.grid("a,b", cluster="local"), "detach=true")
    assert detached.returncode == 0, detached.stderr
    slow.text.write_text(slow.text.read_text().replace("document", "dokument"))
    wait_for(lambda: not workers(slow))
    assert set(slow.states().values()) == {"failed"}
    assert all("has changed since" in cell["error"] for cell in slow.cells())


@pytest.mark.slow
def test_a_terminated_worker_leaves_nothing_behind_but_lost_cells(slow: SlowWorkdir) -> None:
    detached = slow.run(*slow.grid("a_slow", cluster="local"), "detach=true")
    assert detached.returncode == 0, detached.stderr
    wait_for(lambda: slow.times()["a_slow"] > 0)
    for process in workers(slow):
        os.kill(process.pid, signal.SIGKILL)
    wait_for(lambda: not workers(slow))
    assert slow.states() == {"a_slow": "lost"}
    unknown = slow.quantbench("logs", "nothing")
    assert unknown.returncode == 2
    assert "no such cell" in unknown.stderr


@pytest.mark.parametrize(
    ("named", "wanted", "found"),
    [
        (None, None, [0, 1, 2]),
        (None, 2, [0, 1]),
        (None, 0, []),
        ("5,3,4", None, [5, 3, 4]),
        ("5,3,4", 1, [5]),
    ],
)
def test_workers_get_the_gpus_the_command_sees(
    named: str | None, wanted: int | None, found: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if named is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    assert local.visible_gpus(wanted) == found


def test_gpus_that_are_not_there_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with pytest.raises(ConfigError, match=r"cluster\.gpus=4: torch sees 1 here"):
        local.visible_gpus(4)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-8932f937")
    with pytest.raises(ConfigError, match=r"CUDA_VISIBLE_DEVICES=GPU-8932f937: workers .* by number"):
        local.visible_gpus(None)


def test_a_process_that_was_given_gpus_does_not_turn_to_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert pick_device("auto").type == "cpu"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert pick_device("cpu").type == "cpu"
    with pytest.raises(ConfigError, match=r"CUDA_VISIBLE_DEVICES=0 gives this process GPUs, but torch .* sees none"):
        pick_device("auto")
