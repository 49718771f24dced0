"""What a job does before, between and after its cells; nothing is computed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from made_up import frozen
from quantbench.config.composer import compose_cells
from quantbench.core.errors import ConfigError, StoreError
from quantbench.launch import slurm, worker
from quantbench.launch.frozen import freeze, rebuild
from quantbench.launch.records import Chunk, JobRecord, now
from quantbench.launch.runner import run_frozen
from quantbench.launch.state import SweepState


def chunk_of(sweep: SweepState, *keys: str) -> Chunk:
    cells = [frozen(key) for key in keys]
    root, cwd = str(sweep.root), str(Path.cwd())
    return Chunk(token="qb-ours-1", index=0, sweep=sweep.name, root=root, cwd=cwd, path=[], cells=cells)


@pytest.fixture
def sweep(tmp_path: Path) -> SweepState:
    return SweepState(tmp_path, "ours")


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose programs stand in for those of SLURM; each notes how it was called."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


def make(tools: Path, name: str, script: str) -> None:
    (tools / name).write_text(f'#!/bin/sh\necho "{name} $*" >>{tools / "calls"}\n{script}\n')
    (tools / name).chmod(0o755)


def calls(tools: Path) -> list[str]:
    return (tools / "calls").read_text().splitlines()


def test_a_job_of_a_cancelled_submission_that_starts_all_the_same_runs_nothing(sweep: SweepState) -> None:
    path = sweep.save_chunk(chunk_of(sweep, "a"))
    sweep.save_job(
        JobRecord(token="qb-ours-1", cluster="slurm", created=now(), host="login", cells=[["a"]], cancelled=True)
    )
    with pytest.raises(SystemExit) as end:
        worker.run_chunk(str(path))
    assert end.value.code == worker.STOPPED
    assert not list(path.parent.glob("*.starts.json"))


def test_what_would_be_another_cell_by_now_is_refused(sweep: SweepState, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("one document\n\nanother")
    (cell,) = compose_cells(["quantizer=gptq", "calib=local", f"calib.path={text}"])
    submitted = freeze(cell, "a", {})
    assert rebuild(submitted, sweep).run_id == cell.run_id
    text.write_text("one dokument\n\nanother")
    with pytest.raises(StoreError, match=f"submitted as run {cell.run_id} would now be .*has changed since"):
        rebuild(submitted, sweep)


def test_a_node_that_does_not_see_the_output_folder_says_so(sweep: SweepState, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "APPEAR_SECONDS", 0.05)
    with pytest.raises(StoreError, match=r"no such file on .*must be one that all nodes share"):
        worker.run_chunk(str(sweep.chunk_path("qb-ours-1", 0)))


def test_a_node_without_locks_fails_its_cells_with_the_reason(
    sweep: SweepState, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextlib.contextmanager
    def claim(self: SweepState, key: str, *, wait: bool) -> Iterator[bool]:
        raise StoreError(f"{key}.lock: the file system refuses locks")
        yield False

    monkeypatch.setattr(SweepState, "claim", claim)
    assert not run_frozen(sweep, chunk_of(sweep, "a", "b"))
    for key in ("a", "b"):
        status = sweep.load_cell(key)
        assert status is not None
        assert (status.state, status.error) == ("failed", f"StoreError: {key}.lock: the file system refuses locks")


def test_a_job_near_its_end_asks_again_to_be_requeued(
    sweep: SweepState, tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tools, "scontrol", f"[ $(wc -l <{tools / 'calls'}) -ge 3 ]")
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setenv("SLURM_JOB_NODELIST", "n1")
    one = worker.Worker(sweep.save_chunk(chunk_of(sweep, "a")))
    one.signal = 12
    with pytest.raises(SystemExit) as end:
        one._stop()
    assert end.value.code == worker.STOPPED
    assert calls(tools) == ["scontrol requeue 12"] * 3


@pytest.mark.parametrize(
    ("said", "certain"),
    [
        ("sbatch: error: invalid partition specified: nowhere", True),
        ("sbatch: error: Batch job submission failed: Socket timed out on send/recv operation", False),
        ("sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)", False),
        ("sbatch: error: Batch job submission failed: Zero Bytes were transmitted or received", False),
    ],
)
def test_jobs_of_which_nobody_knows_whether_they_were_taken_are_cancelled(
    said: str, certain: bool, tmp_path: Path, tools: Path
) -> None:
    make(tools, "sbatch", f'echo "{said}" >&2; exit 1')
    for name in ("srun", "scancel"):
        make(tools, name, "true")
    expected = "the jobs were refused" if certain else "did not say whether it took the jobs.*None of them will run"
    with pytest.raises(ConfigError, match=f"(?s){expected}"):
        slurm.submit([tmp_path / "0.json"], tmp_path / "log", None, {"job_name": "qb-ours-1"})
    assert ("scancel --name=qb-ours-1" in calls(tools)) != certain


def test_the_folder_of_a_jobs_output_is_there_before_the_job(tmp_path: Path, tools: Path) -> None:
    """SLURM does not start a job whose output it cannot open."""
    make(tools, "srun", "true")
    make(
        tools,
        "sbatch",
        'test -d "$(dirname "$(sed -n \'s/^#SBATCH --output=//p\' "$1")")" && echo "Submitted batch job 5"',
    )
    assert slurm.submit([tmp_path / "0.json"], tmp_path / "log", None, {"job_name": "qb-ours-1"}) == ["5"]


def test_an_accounting_that_does_not_answer_costs_the_reason_only(tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm, "TIMEOUT", 0.1)
    make(tools, "sacct", "exec sleep 5")
    assert slurm.exit_reason("12_3") == ""
    make(tools, "sacct", 'echo "OUT_OF_MEMORY|0:125"')
    monkeypatch.setattr(slurm, "TIMEOUT", 10)
    assert slurm.exit_reason("12_3") == "SLURM says OUT_OF_MEMORY, exit code 0:125"
