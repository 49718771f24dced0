"""The runs of sweeps as the page lists them: settings, and the command that reproduces each."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence

from quantbench.report.columns import DATA_FREE
from quantbench.report.page.content import RunEntry
from quantbench.report.settings import settings
from quantbench.report.sweep_runs import SweepRun, sweep_runs
from quantbench.store.manifest import Manifest
from quantbench.store.store import Store

REPLICATES = ("seed", "draw", "replicate")


def run_entries(store: Store, manifests: Sequence[Manifest]) -> list[RunEntry]:
    """One for each run of the sweeps that has an id, full precision first."""
    found: dict[str, RunEntry] = {}
    for manifest in manifests:
        commands = {cell.run_id: command(cell.overrides) for cell in reversed(manifest.cells)}
        runs = sweep_runs(store, manifest)
        for run in sorted(runs, key=lambda run: not run.full_precision):
            if run.run_id is not None:
                found.setdefault(run.run_id, _entry(run, commands.get(run.run_id)))
    return list(found.values())


def command(overrides: Iterable[str]) -> str:
    """The command line of one cell."""
    return shlex.join(["python", "-m", "quantbench", *overrides])


def _entry(run: SweepRun, typed: str | None) -> RunEntry:
    record = run.record
    calibration = " ".join(part for part in (run.calib, run.calib_variant) if part)
    named = [(name, run.identity(name)) for name in REPLICATES]
    bits = None if record is None else record.effective_bits or record.bits_model
    return RunEntry(
        run_id=run.run_id or "",
        sweep=run.sweep,
        recipe="full precision" if run.full_precision else " ".join(p for p in (run.quantizer, run.variant) if p),
        calibration="" if run.data_free or calibration == DATA_FREE else calibration,
        settings="" if record is None else settings(record.config.get("quantizer", {})),
        status=run.status,
        command=typed,
        draw="" if run.data_free else ", ".join(f"{name} {value}" for name, value in named if value is not None),
        bits="" if bits is None else f"{bits:.4g}",
        error=run.error or "",
        fallbacks="" if record is None else ", ".join(f"{k}: {n}" for k, n in sorted(record.fallbacks.items())),
        created="" if record is None else record.created[:10],
    )
