"""Runs cells one after another in one process, with what they share; writes down what becomes of each."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
import traceback

from quantbench.cells.done import all_scored
from quantbench.cells.recording import record_failure
from quantbench.cells.run import run_cell
from quantbench.cells.session import Session
from quantbench.config.cell import Cell
from quantbench.core.errors import QuantbenchError
from quantbench.core.progress import duration
from quantbench.launch.frozen import check_tasks, rebuild
from quantbench.launch.records import CellStatus, Chunk, FrozenCell, started
from quantbench.launch.state import SweepState
from quantbench.store.store import Store

log = logging.getLogger("quantbench")


class Runner:
    """The cells of one process, run as `job`."""

    def __init__(self, session: Session, sweep: SweepState, job: str) -> None:
        self.session, self.sweep, self.job = session, sweep, job
        self._failed_baselines: dict[tuple[str, ...], str] = {}

    def run(self, cell: Cell, key: str, number: str) -> tuple[CellStatus, bool]:
        """Make sure of the full-precision run on the cell's tasks, then run the cell; a failure costs this cell only.

        Returns what became of it, and whether anything had to be done.
        """
        before = self.sweep.load_cell(key)
        status = started(key, self.job)
        self.sweep.save_cell(status)
        begun = time.monotonic()
        baseline, current = cell.baseline, cell
        did = True
        try:
            scored = all_scored(self.session, cell)
            current = baseline
            if not (scored and all_scored(self.session, baseline)):
                self._full_precision(baseline)
            current = cell
            did = run_cell(self.session, cell, baseline)
        except KeyboardInterrupt:
            self.sweep.save_cell(dataclasses.replace(status, state="interrupted", error="Ctrl-C"))
            raise
        except BaseException as error:  # sys.exit in a component must not end the sweep either
            status = self._failed(status, current, error, number)
        else:
            status = dataclasses.replace(status, state="done")
        if not did and before is not None and before.state == "done":
            status = before  # what is known of when it ran, and how long
        else:
            status = dataclasses.replace(status, seconds=round(time.monotonic() - begun, 3))
        self.sweep.save_cell(status)
        return status, did

    def _full_precision(self, baseline: Cell) -> None:
        """Make sure of the full-precision run; what failed once is not tried again for every cell that needs it."""
        key = (baseline.run_id, *sorted(part.digest for part in baseline.task_parts.values()))
        model = baseline.choices["model"]
        if key in self._failed_baselines:
            raise QuantbenchError(f"full precision of {model} failed: {self._failed_baselines[key]}")
        try:
            if run_cell(self.session, baseline, baseline):
                log.info("full precision of %s: done", model)
        except Exception as error:
            self._failed_baselines[key] = f"{type(error).__name__}: {error}"
            raise

    def _failed(self, status: CellStatus, cell: Cell, error: BaseException, number: str) -> CellStatus:
        self.session.installed = None
        record_failure(self.session, cell, error)
        message = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        more = "" if isinstance(error, QuantbenchError) else f" (quantbench logs {status.key} shows where)"
        log.error("%s %s: %s%s", number, cell.label, message, more)
        lines = "".join(traceback.format_exception(error))
        return dataclasses.replace(status, state="failed", error=message, traceback=lines)


def run_frozen(sweep: SweepState, chunk: Chunk) -> bool:
    """Run the open cells of a job in this process; whether it should end because a device error may stay with it."""
    session = Session(Store(sweep.root), attempt=chunk.token)
    runner = Runner(session, sweep, chunk.job)
    for index, frozen in enumerate(chunk.cells, start=1):
        with contextlib.ExitStack() as held:
            try:
                mine = held.enter_context(sweep.claim(frozen.key, wait=False))
            except QuantbenchError as error:  # another node may do better with the cells: only this job's are lost
                _refuse(sweep, frozen, chunk, error)
                continue
            if not mine or chunk.is_final(sweep.load_cell(frozen.key)):
                continue
            number = f"[{index}/{len(chunk.cells)}]"
            try:
                cell = rebuild(frozen, sweep)
                check_tasks(session, cell, frozen)
            except QuantbenchError as error:
                _refuse(sweep, frozen, chunk, error)
                continue
            status, _ = runner.run(cell, frozen.key, number)
            log.info("%s %s: %s in %s", number, cell.label, status.state, duration(status.seconds or 0.0))
            if status.state == "failed" and session.device(cell).type == "cuda":
                return True
    return False


def _refuse(sweep: SweepState, frozen: FrozenCell, chunk: Chunk, error: Exception) -> None:
    message = f"{type(error).__name__}: {error}"
    log.error("cell %s: %s", frozen.key, message)
    status = started(frozen.key, chunk.job)
    sweep.save_cell(dataclasses.replace(status, state="failed", error=message, seconds=0.0))
