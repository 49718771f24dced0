"""What a job runs: a parent that loads nothing, and a child it forks, which runs cell after cell with a loaded model.

A child that dies costs the cell it was running; the parent forks the next one for the rest. SLURM's signals reach the
parent: near the time limit it puts the job back into the queue, when the job is cancelled it stops.

A cell that another process has is waited for: that process may be on a machine that went down, whose lock stays until
the file server gives it up, and then the cell is this job's again.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

from quantbench.core import shared
from quantbench.core.errors import StoreError
from quantbench.core.files import read_json, write_json
from quantbench.core.logs import set_up_logging
from quantbench.core.progress import counted
from quantbench.launch.records import Chunk
from quantbench.launch.state import SweepState

log = logging.getLogger("quantbench")

NEW_PROCESS = 77
"""Exit status of a child that asks for a fresh process: a device error stays with a process for good."""
SET_ASIDE = 144
"""Exit status of a worker on this machine that is to be started again (submitit's convention)."""
STOPPED = 128 + signal.SIGTERM
APPEAR_SECONDS = 60.0
"""How long the file with its cells, which the command wrote before it submitted, may stay out of a job's sight."""
LOOK_SECONDS = (1.0, 10.0)
"""How often it is seen whether a cell that another process has is free; at first, and later."""
REQUEUE_TRIES = 4
FRUITLESS_STARTS = 3
"""Starts of a job in a row that finished no part of anything; then the cell it stands at is given up."""


def run_chunk(path: str) -> None:
    """Run the cells frozen at `path`, as far as they are not done. Ends the process non-zero if one failed."""
    Worker(Path(path)).run()


class Worker:
    """The parent of one job."""

    def __init__(self, path: Path) -> None:
        set_up_logging()
        if not shared.appears(path, APPEAR_SECONDS):
            raise StoreError(
                f"{path}: no such file on {socket.gethostname()}; the output folder must be one that all nodes share"
            )
        chunk = Chunk.from_json(shared.read_text(path), str(path))
        self.path, self.chunk = path, chunk
        self.sweep = SweepState(Path(chunk.root), chunk.sweep)
        self.signal: int | None = None
        self.child: int | None = None

    def run(self) -> None:
        """See run_chunk."""
        submission = self.sweep.load_job(self.chunk.token)
        if submission is not None and submission.cancelled:
            log.warning("submission %s was cancelled: nothing is run", self.chunk.token)
            sys.exit(STOPPED)
        os.chdir(self.chunk.cwd)
        sys.path += [entry for entry in self.chunk.path if entry not in sys.path]
        # submitit's own handlers decide by the clock whether a job was preempted or timed out: not needed here.
        for number in (signal.SIGUSR2, signal.SIGTERM):
            signal.signal(number, self._on_signal)
        self._note_start()
        while self._open_keys():
            before = len(self._open_keys())
            code = self._child_in_process()
            if self.signal is not None:
                self._stop()
            if code == 0:
                self._wait_for_others()
                continue
            self._record_crash(code)
            if code != NEW_PROCESS and len(self._open_keys()) == before:
                log.error("the process ended with status %d before it could run a cell", code)
                sys.exit(1)
        failed = [key for key in self._keys() if self._state(key) == "failed"]
        log.info("%d of %d cells failed", len(failed), len(self._keys()))
        # Only now, at the end, may SLURM learn of it: it would not run the rest.
        if failed:
            sys.exit(1)

    # The child

    def _child_in_process(self) -> int:
        """Fork; in the child run what is open, in the parent wait. Exit status, negative: minus the signal."""
        sys.stdout.flush()
        sys.stderr.flush()
        self.child = os.fork()
        if self.child == 0:
            signal.signal(signal.SIGUSR2, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            code = 1
            try:
                from quantbench.launch.runner import run_frozen

                code = NEW_PROCESS if run_frozen(self.sweep, self.chunk) else 0
            except BaseException:
                log.exception("the process that runs the cells fails")
            finally:
                logging.shutdown()
                os._exit(code)
        if self.signal is not None:  # it came while there was no child to end
            os.kill(self.child, signal.SIGKILL)
        _, status = os.waitpid(self.child, 0)
        self.child = None
        code = os.waitstatus_to_exitcode(status)
        if code == -signal.SIGTERM:  # SLURM signals every process of a job: ours comes in a moment
            for _ in range(20):
                if self.signal is None:
                    time.sleep(0.1)
        return code

    def _wait_for_others(self) -> None:
        """Wait until one of the open cells, all of which other processes have, is free or none is open."""
        told, pause = False, LOOK_SECONDS[0]
        while open_keys := self._open_keys():
            for key in open_keys:
                with self.sweep.claim(key, wait=False) as free:
                    if free:
                        return
            if not told:
                told = True
                lock = self.sweep.lock_path(open_keys[0])
                cells = counted(len(open_keys), "cell")
                log.info("%s left, which other processes have: waiting for them (%s)", cells, lock)
            self._sleep(pause)
            pause = min(LOOK_SECONDS[1], pause * 1.5)

    def _sleep(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.signal is not None:
                self._stop()
            time.sleep(min(0.5, seconds))

    def _record_crash(self, code: int) -> None:
        """Write down what a child that died was running as failed."""
        for key in self._keys():
            status = self.sweep.load_cell(key)
            if status is not None and status.state == "running" and status.job == self.chunk.job:
                error = f"its process was ended by signal {-code} ({signal.Signals(-code).name})" if code < 0 else ""
                error = error or f"its process ended with status {code}"
                if code == -signal.SIGKILL:
                    error += ": often the machine was out of memory"
                log.error("cell %s: %s", key, error)
                self.sweep.save_cell(dataclasses.replace(status, state="failed", error=error))

    # Signals

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self.signal = self.signal or number
        if self.child:
            os.kill(self.child, signal.SIGKILL)

    def _stop(self) -> None:
        """Leave the running cell open; near the time limit ask for another turn."""
        for key in self._keys():
            status = self.sweep.load_cell(key)
            if status is not None and status.state == "running" and status.job == self.chunk.job:
                why = "the job was stopped" if self.signal == signal.SIGTERM else "the time limit of its job came"
                self.sweep.save_cell(dataclasses.replace(status, state="interrupted", error=why))
        if self.signal == signal.SIGTERM:
            log.warning("stopped by SIGTERM: the job was cancelled or has to make way for another")
            sys.exit(STOPPED)
        job_id = os.environ.get("SLURM_JOB_ID")
        if job_id is None or "SLURM_JOB_NODELIST" not in os.environ:
            log.warning("time is up: starting again")
            sys.exit(SET_ASIDE)
        array, index = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
        name = f"{array}_{index}" if array and index else job_id
        log.warning("time is up: job %s goes back into the queue", name)
        for _ in range(REQUEUE_TRIES):
            try:
                subprocess.run(["scontrol", "requeue", name], check=True, timeout=15)
                break
            except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
                log.warning("scontrol requeue: %s", error)
        else:
            log.error("job %s could not be put back into the queue: the same command submits its cells again", name)
        sys.exit(STOPPED)

    # Progress over restarts

    def _note_start(self) -> None:
        """Count this start; give up a cell that several starts did not bring any further."""
        file = self.path.with_name(f"{self.chunk.index}.starts.json")
        starts: list[list[str]] = read_json(file, f"Delete {file}") if file.exists() else []
        finished = self._finished_parts()
        recent = starts[-FRUITLESS_STARTS:]
        if len(recent) == FRUITLESS_STARTS and all(parts == finished for parts in recent):
            self._give_up(len(recent))
            starts = []
        write_json(file, [*starts, finished])

    def _give_up(self, times: int) -> None:
        for key in self._open_keys():
            status = self.sweep.load_cell(key)
            ours = status is not None and status.job == self.chunk.job  # else it waits for another process
            if status is not None and ours and status.state in {"interrupted", "running"}:
                error = (
                    f"interrupted {times} times without finishing any part of it ({status.error or 'killed'}): it "
                    "needs longer jobs (cluster.minutes) or fewer cells in one (cluster.cells_per_job)"
                )
                self.sweep.save_cell(dataclasses.replace(status, state="failed", error=error, job=self.chunk.job))
                return

    def _finished_parts(self) -> list[str]:
        """Names of everything finished for the cells of this job: quantized models, scores, blocks of a checkpoint."""
        runs = Path(self.chunk.root) / "runs"
        found = []
        for run_id in dict.fromkeys(cell.run_id for cell in self.chunk.cells):
            patterns = ("record.json", "scores/*.json", "checkpoint/*.json")
            found += [f"{run_id}/{path.name}" for pattern in patterns for path in (runs / run_id).glob(pattern)]
        return sorted([*found, *(key for key in self._keys() if self._state(key) in {"done", "failed"})])

    # Cells

    def _keys(self) -> list[str]:
        return [cell.key for cell in self.chunk.cells]

    def _open_keys(self) -> list[str]:
        """Cells that this job still has to look at."""
        self.sweep.refresh()
        return [key for key in self._keys() if not self.chunk.is_final(self.sweep.load_cell(key))]

    def _state(self, key: str) -> str:
        status = self.sweep.load_cell(key)
        return "" if status is None else status.state
