"""Where everything lies under outputs/.

runs/<run_id>/record.json, weights.safetensors, weights.json, calibration.csv, costs.jsonl, observed.json, log.txt,
               exports.jsonl
runs/<run_id>/scores/<task>-<protocol[:12]>.json, .parquet (items) and .totals.npy, of text also .positions.parquet,
                     perhaps .documents.csv; or .failed.json alone
sweeps/<name>/manifest.json, results.csv, results.parquet, comparisons.csv, variance.csv, costs.csv, layers.csv, tables/
references/   hidden states of the full-precision model, keyed by run, task and protocol
"""

from __future__ import annotations

import re
from pathlib import Path

from quantbench.core import files
from quantbench.core.errors import StoreError

SAFE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+=-]*")
PROTOCOL_DIGITS = 12


class Layout:
    """The paths under `root`. Names that are no plain file names are refused with a StoreError."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def run_dir(self, run_id: str) -> Path:
        """The folder of a run; it need not exist."""
        return self.root / "runs" / safe_name(run_id, "run id")

    def weights_path(self, run_id: str) -> Path:
        """The quantized model's tensors."""
        return self.run_dir(run_id) / "weights.safetensors"

    def spec_path(self, run_id: str) -> Path:
        """How the tensors of `weights_path` make up a model: plain JSON."""
        return self.run_dir(run_id) / "weights.json"

    def listing_path(self, run_id: str) -> Path:
        """Where the documents calibrated on stand in their source."""
        return self.run_dir(run_id) / "calibration.csv"

    def log_path(self, run_id: str) -> Path:
        """The log of the processes that worked on a run."""
        return self.run_dir(run_id) / "log.txt"

    def checkpoint_dir(self, run_id: str) -> Path:
        """Where a quantization that is not finished keeps its finished blocks."""
        return self.run_dir(run_id) / "checkpoint"

    def reference_path(self, run_id: str, task: str, protocol: str) -> Path:
        """The full-precision hidden states of run `run_id` on a task, in a folder that exists."""
        folder = files.make_folder(self.root / "references")
        return folder / f"{safe_name(run_id, 'run id')}-{_score_name(task, protocol)}.safetensors"

    def sweep_dir(self, name: str) -> Path:
        """The folder of a sweep, which exists after the call."""
        return files.make_folder(self.root / "sweeps" / safe_name(name, "sweep name"))

    def score_path(self, run_id: str, task: str, protocol: str) -> Path:
        """The JSON file of a score; beside it lie its items (.parquet), totals (.totals.npy) and perhaps positions."""
        return self.run_dir(run_id) / "scores" / f"{_score_name(task, protocol)}.json"

    def failure_path(self, run_id: str, task: str, protocol: str) -> Path:
        """Why there is no such score."""
        return self.score_path(run_id, task, protocol).with_suffix(".failed.json")

    def manifest_path(self, name: str) -> Path:
        """The manifest of a sweep; its folder need not exist."""
        return self.root / "sweeps" / safe_name(name, "sweep name") / "manifest.json"


def safe_name(name: str, what: str) -> str:
    """The name, if it can name a file; else StoreError with what it is the name of."""
    if not SAFE_NAME.fullmatch(name):
        raise StoreError(f"{what} {name!r} cannot name a file: use letters, digits and _ . + = -")
    return name


def _score_name(task: str, protocol: str) -> str:
    return f"{safe_name(task, 'task name')}-{safe_name(protocol, 'protocol id')[:PROTOCOL_DIGITS]}"
