"""Runs cells one after another in one process, with what they share; tells the board what becomes of each."""

from __future__ import annotations

import dataclasses
import logging
import time
import traceback

from quantbench.cells.run import record_failure, run_cell
from quantbench.cells.session import Session
from quantbench.config.compose import cell_of
from quantbench.config.schema import Cell
from quantbench.core.errors import QuantbenchError, StoreError
from quantbench.core.progress import duration
from quantbench.launch.state import Board, CellStatus, Chunk, FrozenCell
from quantbench.launch.worker import started
from quantbench.pipeline.recipe import full_precision
from quantbench.store.store import Store
from quantbench.tasks.task import protocol_id

log = logging.getLogger("quantbench")


class Runner:
    """The cells of one process, run as `job`."""

    def __init__(self, session: Session, board: Board, job: str) -> None:
        self.session, self.board, self.job = session, board, job

    def run(self, cell: Cell, key: str, place: str) -> tuple[CellStatus, bool]:
        """Make sure of the full-precision run on the cell's tasks, then run the cell; a failure costs this cell only.

        Returns what became of it, and whether anything had to be done.
        """
        before = self.board.load_cell(key)
        status = started(key, self.job)
        self.board.save_cell(status)
        begun = time.monotonic()
        baseline = current = baseline_of(cell)
        did = True
        try:
            if run_cell(self.session, baseline, baseline):
                log.info("full precision of %s: done", cell.choices["model"])
            current = cell
            did = run_cell(self.session, cell, baseline)
        except KeyboardInterrupt:
            self.board.save_cell(dataclasses.replace(status, state="interrupted", error="Ctrl-C"))
            raise
        except BaseException as error:  # sys.exit in a component must not end the sweep either
            status = self._failed(status, current, error, place)
        else:
            status = dataclasses.replace(status, state="done")
        if not did and before is not None and before.state == "done":
            status = before  # what is known of when it ran, and how long
        else:
            status = dataclasses.replace(status, seconds=round(time.monotonic() - begun, 3))
        self.board.save_cell(status)
        return status, did

    def _failed(self, status: CellStatus, cell: Cell, error: BaseException, place: str) -> CellStatus:
        self.session.installed = None
        if not isinstance(error, QuantbenchError):
            log.exception("%s %s", place, cell.label)
        record_failure(self.session, cell, error)
        message = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        log.error("%s %s: %s", place, cell.label, message)
        lines = "".join(traceback.format_exception(error))
        return dataclasses.replace(status, state="failed", error=message, traceback=lines)


def baseline_of(cell: Cell) -> Cell:
    """The full-precision run on the cell's tasks."""
    choices = {**cell.choices, "quantizer": "none"}
    return dataclasses.replace(cell, recipe=full_precision(), calib=None, choices=choices, overrides=())


def run_frozen(board: Board, chunk: Chunk) -> bool:
    """Run the open cells of a job in this process; whether it should end because a device error may stay with it."""
    session = Session(Store(board.root))
    runner = Runner(session, board, chunk.job)
    for number, frozen in enumerate(chunk.cells, start=1):
        with board.claim(frozen.key, wait=False) as mine:
            status = board.load_cell(frozen.key)
            finished = status is not None and (
                status.state == "done" or (status.state == "failed" and _same_submission(status, chunk))
            )
            if not mine or finished:
                continue
            place = f"[{number}/{len(chunk.cells)}]"
            try:
                cell = thawed(frozen, board)
                check_tasks(session, cell, frozen)
            except QuantbenchError as error:
                _refuse(board, frozen, chunk, error)
                continue
            status, _ = runner.run(cell, frozen.key, place)
            log.info("%s %s: %s in %s", place, cell.label, status.state, duration(status.seconds or 0.0))
            if status.state == "failed" and session.device(cell).type == "cuda":
                return True
    return False


def freeze(cell: Cell, key: str, tasks: dict[str, str]) -> FrozenCell:
    """A cell as it is submitted; `tasks` are the protocol ids of its tasks."""
    choices, overrides = dict(cell.choices), list(cell.overrides)
    return FrozenCell(
        key=key, config=cell.config, choices=choices, overrides=overrides, run_id=cell.run_id, tasks=tasks
    )


def thawed(frozen: FrozenCell, board: Board) -> Cell:
    """The cell that was submitted. Raises StoreError if it is another one by now (files or quantbench changed)."""
    config = {**frozen.config, "output_dir": str(board.root)}
    cell = cell_of(config, frozen.overrides, frozen.choices)
    if cell.run_id != frozen.run_id:
        raise StoreError(
            f"what was submitted as run {frozen.run_id} would now be {cell.run_id}: a local file it reads, or "
            "quantbench itself, has changed since. Nothing was run; the same command submits it as it is now"
        )
    return cell


def check_tasks(session: Session, cell: Cell, frozen: FrozenCell) -> None:
    """Raise StoreError if a test set is not the one the cell was submitted for."""
    tests = session.inputs(cell).tests
    changed = [task for task, protocol in frozen.tasks.items() if protocol_id(tests[task]) != protocol]
    if changed:
        raise StoreError(
            f"the test set of task {changed[0]} has changed since the cell was submitted; the same command submits it "
            "as it is now"
        )


def _same_submission(status: CellStatus, chunk: Chunk) -> bool:
    return status.job.partition("/")[0] == chunk.token


def _refuse(board: Board, frozen: FrozenCell, chunk: Chunk, error: Exception) -> None:
    message = f"{type(error).__name__}: {error}"
    log.error("cell %s: %s", frozen.key, message)
    status = started(frozen.key, chunk.job)
    board.save_cell(dataclasses.replace(status, state="failed", error=message, seconds=0.0))
