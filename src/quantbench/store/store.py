"""The run store under outputs/: the only place that creates run folders, and the only one that says what is finished.

Every write is atomic. A JSON file is the mark that its part is done: the Parquet file of a score is written before it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from typing import Any

from quantbench.core import files
from quantbench.core.errors import StoreError
from quantbench.store.base import load_record, refuse_change
from quantbench.store.json_record import check_schema
from quantbench.store.manifest import CellEntry, Manifest
from quantbench.store.records import Observed, RunRecord
from quantbench.store.scores import ScoreStore

log = logging.getLogger(__name__)


EXPORTS_REMEDY = "Repair or delete that file: it lists exports only, which say the same of themselves"


class Store(ScoreStore):
    """The results under `root`: runs, their scores, costs, and sweeps."""

    # Runs

    def run_ids(self) -> list[str]:
        """The runs that have a record, finished or failed, in alphabetical order."""
        return sorted(path.parent.name for path in self.root.glob("runs/*/record.json"))

    def load_run(self, run_id: str) -> RunRecord | None:
        """The record of a run, None if there is none. Raises StoreError if it is damaged."""
        path = self.run_dir(run_id) / "record.json"
        remedy = f"Restore it, or delete the folder {path.parent} to compute the run again"
        record = load_record(RunRecord, path, remedy)
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
                refuse_change(folder / "record.json", old, record)

    # Losses of layers

    def load_observed(self, run_id: str) -> Observed | None:
        """What the layers of a data-free run lose on some text, None if that is not known. StoreError if damaged."""
        path = self.run_dir(run_id) / "observed.json"
        return load_record(Observed, path, f"Delete {path}: it is measured again")

    def save_observed(self, observed: Observed) -> None:
        """Store it, in place of what was there."""
        with self.lock(observed.run_id) as folder:
            files.write_text(folder / "observed.json", observed.to_json())

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

    # Exports, of which there may be any number

    def append_export(self, run_id: str, export: Mapping[str, Any]) -> None:
        """Add what is known of a model that was exported from a run: plain values, with "format" and "folder"."""
        with self.lock(run_id) as folder:
            line = json.dumps(dict(export), ensure_ascii=False, allow_nan=False)
            path = folder / "exports.jsonl"
            before = files.read_text(path, EXPORTS_REMEDY) if path.exists() else ""
            files.write_text(path, f"{before}{line}\n")

    def load_exports(self, run_id: str) -> list[dict[str, Any]]:
        """What was exported from a run, oldest first. Raises StoreError if the file is damaged."""
        path = self.run_dir(run_id) / "exports.jsonl"
        if not path.exists():
            return []
        try:
            return [json.loads(line) for line in files.read_text(path, EXPORTS_REMEDY).splitlines()]
        except (ValueError, RecursionError) as error:
            raise StoreError(f"{path} is damaged: {error}. {EXPORTS_REMEDY}") from error

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
        return load_record(Manifest, path, "Delete it and run the sweep again: finished runs are kept and found")

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
