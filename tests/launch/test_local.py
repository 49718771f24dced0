"""Workers on this machine: same numbers, a dead process costs one cell, and sweeps outlive their command."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import psutil
import pytest

from quantbench.core.environment import pick_device
from quantbench.core.errors import ConfigError
from quantbench.launch import local
from slurm_place import LAYERS, SlurmPlace, wait_for


@pytest.fixture
def slow(tmp_path: Path) -> SlurmPlace:
    return SlurmPlace(tmp_path)


def states(place: SlurmPlace) -> list[str]:
    told = json.loads(place.quantbench("status", place.sweep, "--json").stdout)
    return [cell["state"] for cell in told["cells"]]


def workers(place: SlurmPlace) -> list[psutil.Process]:
    """Controllers and workers of this place."""
    found = [p for p in psutil.process_iter(["cmdline"]) if "submitit" in " ".join(p.info["cmdline"] or ())]
    return [p for p in found if str(place.folder) in " ".join(p.info["cmdline"])]


def test_a_killed_process_costs_its_cell_and_two_workers_share_the_rest(slow: SlurmPlace) -> None:
    grid = slow.grid("a,b_killed,c,d_raises", "cluster.workers=2", cluster="local")
    done = slow.run(*grid)
    assert done.returncode == 1
    assert "ended by signal 9 (SIGKILL)" in done.stderr
    assert states(slow) == ["done", "failed", "done", "failed"]
    assert slow.quantbench("status", slow.sweep).returncode == 1
    slow.mend()
    again = slow.run(*grid)
    assert again.returncode == 0, again.stderr
    assert "4 cells, 2 finished, 0 on their way, 2 submitted" in again.stderr
    assert states(slow) == ["done"] * 4
    assert slow.times()["a"] == slow.times()["c"] == LAYERS
    written = slow.written()
    once_more = slow.run(*grid)
    assert once_more.returncode == 0, once_more.stderr
    assert "everything was done before" in once_more.stderr
    assert "pending" not in once_more.stdout
    assert slow.written() == written


def test_a_detached_sweep_is_watched_cancelled_and_taken_up_again(slow: SlurmPlace) -> None:
    grid = slow.grid("a,b", "quantizer.rounding.seconds=12", cluster="local")
    detached = slow.run(*grid, "detach=true")
    assert detached.returncode == 0, detached.stderr
    wait_for(lambda: slow.times()["a"] > 0)
    assert states(slow) == ["running", "queued"]
    assert "2 open cells cancelled" in slow.quantbench("cancel", slow.sweep).stdout
    wait_for(lambda: not workers(slow))
    assert states(slow) == ["cancelled", "cancelled"]
    retried = slow.quantbench("retry", slow.sweep)
    assert retried.returncode == 0, retried.stderr
    assert states(slow) == ["done", "done"]
    assert slow.times()["b"] == LAYERS


def test_a_cell_whose_text_changed_after_submission_is_refused(slow: SlurmPlace) -> None:
    detached = slow.run(*slow.grid("a,b", "quantizer.rounding.seconds=4", cluster="local"), "detach=true")
    assert detached.returncode == 0, detached.stderr
    slow.text.write_text(slow.text.read_text().replace("document", "dokument"))
    wait_for(lambda: set(states(slow)) == {"failed"})
    told = json.loads(slow.quantbench("status", slow.sweep, "--json").stdout)
    assert all("has changed since" in cell["error"] for cell in told["cells"])
    wait_for(lambda: not workers(slow))


def test_a_terminated_worker_leaves_nothing_behind_but_lost_cells(slow: SlurmPlace) -> None:
    detached = slow.run(*slow.grid("a", "quantizer.rounding.seconds=20", cluster="local"), "detach=true")
    assert detached.returncode == 0, detached.stderr
    wait_for(lambda: slow.times()["a"] > 0)
    for process in workers(slow):
        os.kill(process.pid, signal.SIGKILL)
    wait_for(lambda: not workers(slow))
    assert states(slow) == ["lost"]
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
