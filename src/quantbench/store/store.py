"""The run store under outputs/: the only place that creates run folders, and the only one that says what is finished.

Every write is atomic. A JSON file is the mark that its part is done: the Parquet file of a score is written before it.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
from filelock import FileLock, Timeout

from quantbench.core import files
from quantbench.core.errors import StoreError
from quantbench.core.locks import acquire, file_lock
from quantbench.core.shared import is_there, relist
from quantbench.metrics.metrics import check_items
from quantbench.store.json_record import JsonRecord, SchemaError, check_schema, differences
from quantbench.store.layout import Layout, safe_name
from quantbench.store.manifest import CellEntry, Manifest
from quantbench.store.records import Failure, RunRecord, Score

log = logging.getLogger(__name__)

S = TypeVar("S", bound=JsonRecord)


class Store(Layout):
    """The results under `root`. Nothing is created before something is locked or saved.

    Raises SchemaError if the folder holds results of another schema: a store is of one schema throughout, so that no
    command writes into one that it cannot read.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._locks: dict[str, FileLock] = {}
        for path in itertools.chain(root.glob("sweeps/*/manifest.json"), root.glob("runs/*/record.json")):
            if check_schema(path):  # one speaks for all
                break

    # Locking

    @contextlib.contextmanager
    def lock(self, run_id: str) -> Iterator[Path]:
        """Have the run to oneself: its folder is created, and other processes wait. Gives the folder.

        The same thread may take it again inside. What a killed process left half-written is removed first.
        Raises StoreError if the folder cannot be written, or its file system refuses locks.
        """
        folder = files.make_folder(self.run_dir(run_id))
        lock = self._locks.setdefault(run_id, file_lock(folder / ".lock"))
        try:
            acquire(lock, wait=False)
        except Timeout:
            log.warning("run %s is in use by another process: waiting for it to finish (%s)", run_id, lock.lock_file)
            acquire(lock, wait=True)
        try:
            if lock.lock_counter == 1:
                for leftover in folder.rglob(files.TEMPORARY):
                    leftover.unlink(missing_ok=True)
            yield folder
        finally:
            lock.release()

    # Runs

    def run_ids(self) -> list[str]:
        """The runs that have a record, finished or failed, in alphabetical order."""
        return sorted(path.parent.name for path in self.root.glob("runs/*/record.json"))

    def load_run(self, run_id: str) -> RunRecord | None:
        """The record of a run, None if there is none. Raises StoreError if it is damaged."""
        path = self.run_dir(run_id) / "record.json"
        remedy = f"Restore it, or delete the folder {path.parent} to compute the run again"
        record = _load(RunRecord, path, remedy)
        if record is not None and record.run_id != run_id:
            raise StoreError(f"{path} holds the record of run {record.run_id!r}. {remedy}")
        return record

    def save_run(self, record: RunRecord) -> None:
        """Store the record of a run, after everything else of the run: it marks it as done.

        A failed record may be replaced. Raises StoreError if a finished one differs in more than time and environment.
        """
        text = record.to_json()
        with self.lock(record.run_id) as folder:
            old = self.load_run(record.run_id)
            if old is None or old.status == "failed":
                files.write_text(folder / "record.json", text)
            else:
                _refuse_change(folder / "record.json", old, record)

    # Scores

    def load_score(self, run_id: str, task: str, protocol: str) -> Score | None:
        """A run's score on a task under a protocol, None if there is none. Raises StoreError if it is damaged."""
        return self._load_score(self.score_path(run_id, task, protocol), (run_id, task, protocol))

    def has_score(self, run_id: str, task: str, protocol: str) -> bool:
        """Whether there is such a score; it is not read."""
        return is_there(self.score_path(run_id, task, protocol))

    def load_items(self, run_id: str, task: str, protocol: str) -> pd.DataFrame:
        """The per-item outcomes behind a score, one row per item. Raises StoreError if missing or damaged."""
        path = self.score_path(run_id, task, protocol)
        return files.read_parquet(path.with_suffix(".parquet"), _score_remedy(path))

    def save_score(self, score: Score, items: pd.DataFrame, attachments: Mapping[str, str] | None = None) -> None:
        """Store a score and its per-item outcomes: columns item and document (str, item unique), then numbers.

        For language modelling these are n_tokens, n_bytes, nll (mean nats per predicted token of the item), and where
        a reference was at hand kl (mean nats per token) and top1_agreement (share of
        tokens with the same most likely one).
        attachments: file name suffix -> text, stored as it is beside the score.
        Raises StoreError if the items do not fit the score or hold NaN, or if a different score is stored already.
        """
        path = self.score_path(score.run_id, score.task, score.protocol)
        check_items(items, score.n_items, f"the items of task {score.task!r} of run {score.run_id}")
        text = score.to_json()
        with self.lock(score.run_id):
            old = self.load_score(score.run_id, score.task, score.protocol)
            if old is not None:
                _refuse_change(path, old, score)
                return
            files.make_folder(path.parent)
            files.write_parquet(path.with_suffix(".parquet"), items)
            for suffix, attached in (attachments or {}).items():
                files.write_text(path.with_suffix(f".{safe_name(suffix, 'attachment')}"), attached)
            files.write_text(path, text)
            self.failure_path(score.run_id, score.task, score.protocol).unlink(missing_ok=True)

    def save_failure(self, run_id: str, task: str, protocol: str, failure: Failure) -> None:
        """Store why a run could not be scored on a task, in place of an older reason."""
        path = self.failure_path(run_id, task, protocol)
        with self.lock(run_id):
            files.make_folder(path.parent)
            files.write_text(path, failure.to_json())

    def load_failure(self, run_id: str, task: str, protocol: str) -> Failure | None:
        """Why a run could not be scored on a task when that was tried last; None if it was not, or could be."""
        path = self.failure_path(run_id, task, protocol)
        return _load(Failure, path, f"Delete {path}: the task is then tried again")

    def scores(self, run_id: str) -> list[Score]:
        """All scores of a run, by task and protocol."""
        folder = self.run_dir(run_id) / "scores"
        relist(folder)
        found = sorted(folder.glob("[!.]*.json"))
        # <task>-<protocol>.json; an attachment has one more suffix before .json.
        paths = [path for path in found if "." not in path.stem.rpartition("-")[2]]
        loaded = [self._load_score(path, (run_id,)) for path in paths]
        return sorted((score for score in loaded if score is not None), key=lambda s: (s.task, s.protocol))

    def _load_score(self, path: Path, expected: tuple[str, ...]) -> Score | None:
        score = _load(Score, path, _score_remedy(path))
        if score is not None and (score.run_id, score.task, score.protocol)[: len(expected)] != expected:
            raise StoreError(f"{path} holds another score than {' / '.join(expected)}. {_score_remedy(path)}")
        return score

    # Costs: measurements, of which there may be any number

    def append_cost(self, run_id: str, cost: Mapping[str, Any]) -> None:
        """Add one measurement: plain values, among them "environment" (an id of the hardware and versions measured)."""
        if "environment" not in cost:
            raise ValueError(f'a cost needs the key "environment"; it has {sorted(cost)}')
        with self.lock(run_id) as folder:
            lines = [*self.load_costs(run_id), dict(cost)]
            text = "".join(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n" for line in lines)
            files.write_text(folder / "costs.jsonl", text)

    def load_costs(self, run_id: str) -> list[dict[str, Any]]:
        """All measurements of a run, oldest first. Raises StoreError if the file is damaged."""
        path = self.run_dir(run_id) / "costs.jsonl"
        if not path.exists():
            return []
        remedy = "Repair or delete that file: it holds measured costs only, no results"
        try:
            costs = [json.loads(line) for line in files.read_text(path, remedy).splitlines()]
        except (ValueError, RecursionError) as error:
            raise StoreError(f"{path} is damaged: {error}. {remedy}") from error
        if not all(isinstance(cost, dict) and "environment" in cost for cost in costs):
            raise StoreError(f"{path} is damaged: a line is no measurement. {remedy}")
        return costs

    # Sweeps

    def sweep_names(self) -> list[str]:
        """The sweeps that have a manifest, in alphabetical order."""
        return sorted(path.parent.name for path in self.root.glob("sweeps/*/manifest.json"))

    def find_sweep(self, name: str) -> str:
        """The sweep of that name, or the only one whose name begins like that. Raises StoreError if it is not one."""
        known = self.sweep_names()
        found = [name] if name in known else [one for one in known if name and one.startswith(name)]
        if len(found) != 1:
            problem = f"{len(found)} sweeps begin like that" if found else "no such sweep"
            raise StoreError(f"{name}: {problem} in {self.root}. Sweeps: {', '.join(found or known) or 'none'}")
        return found[0]

    def load_manifest(self, name: str) -> Manifest | None:
        """The manifest of a sweep, None if there is none. Raises StoreError if it is damaged."""
        path = self.manifest_path(name)
        return _load(Manifest, path, "Delete it and run the sweep again: finished runs are kept and found")

    def manifests(self) -> Iterator[Manifest]:
        """The manifests of all sweeps; one that is damaged is left out, with a warning."""
        for name in self.sweep_names():
            try:
                manifest = self.load_manifest(name)
            except StoreError as error:
                log.warning("sweep %s is left out: %s", name, error)
            else:
                if manifest is not None:
                    yield manifest

    def is_done(self, entry: CellEntry) -> bool:
        """Whether all results of a manifest's cell, and of its full-precision run, are there; none is read."""
        return all(
            run_id is not None and protocol is not None and self.has_score(run_id, task, protocol)
            for task, protocol in entry.tasks.items()
            for run_id in (entry.run_id, entry.baseline_run_id)
        )

    def save_manifest(self, manifest: Manifest) -> None:
        """Store a manifest, in place of the one before. Raises SchemaError if that has another schema."""
        path = self.manifest_path(manifest.name)
        check_schema(path)
        files.make_folder(path.parent)
        files.write_text(path, manifest.to_json())


def _score_remedy(path: Path) -> str:
    return f"Restore it, or delete {path.with_suffix('.json')} and .parquet to score that task again"


def _load(kind: type[S], path: Path, remedy: str) -> S | None:
    if not is_there(path):
        return None
    text = files.read_text(path, remedy)
    try:
        return kind.from_json(text, str(path))
    except SchemaError:
        raise
    except StoreError as error:
        raise StoreError(f"{error}. {remedy}") from error


def _refuse_change(path: Path, old: JsonRecord, new: JsonRecord) -> None:
    changed = differences(old, new)
    if changed:
        raise StoreError(
            f"{path} is finished and is not overwritten by a different result (different: {', '.join(changed)}). "
            "If the stored one is wrong, delete it and run the same command again"
        )
