"""How long results of many scores take to be collated and compared, and how much memory that needs. Not a test: prints.

    python benchmarks/collation.py [--draws 5] [--report FILE]

A made-up store: 10 recipes calibrated on 13 sets, 5 draws each, and 5 data-free ones, on 10 texts with 30 clusters and
15 metrics. Seconds are those of the processor. With --report the report is written, too; 8 draws are 1,045 cells.
"""

from __future__ import annotations

import argparse
import itertools
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from quantbench.core.origin import Origin
from quantbench.metrics.metric import Metric
from quantbench.metrics.metrics import METRICS
from quantbench.report.collate import collated, csv_text
from quantbench.report.comparisons import compared
from quantbench.report.page.figures import sections
from quantbench.report.page.gather import gathered
from quantbench.report.page.page import html
from quantbench.report.scored import SweepScores
from quantbench.store.manifest import CellEntry, Manifest
from quantbench.store.records import LayerRecord, RunRecord, Score
from quantbench.store.store import Store

N_CLUSTERS, N_ITEMS = 30, 120
TEXTS = [f"text{index:02d}" for index in range(10)]
SETS = [*TEXTS, "other0", "other1", "other2"]
PLAIN = ("perplexity", "nll", "bits_per_byte")
RELATIVE = [name for name, info in METRICS.items() if info.relative and info.items == "windows"]
ALL = [*PLAIN, *RELATIVE, *[f"extra{index}" for index in range(15)]][:15]


def origin(name: str) -> Origin:
    return Origin(name=name, family="lm", domain=name, language="en")


def write_run(store: Store, run_id: str, recipe: str, calib: str | None, draw: int, rng: np.random.Generator) -> None:
    """A run with its scores, as plain files: nothing is locked or synced."""
    identity = {"numerics_version": 1, "model": {"dtype": "float32"}, "quantizer": {"name": recipe}}
    if calib is not None:
        identity |= {"calib": {"name": calib, "draw": draw, "seed": 0}, "seed": 0, "replicate": 0}
    record = RunRecord(
        run_id=run_id,
        status="quantized",
        choices={"model": "m", "quantizer": recipe},
        config=identity,
        fingerprints={},
        environment={},
        created="",
        calibration={"n_tokens": 8192, "seed": 0, "draw": draw} if calib else None,
        origins=[origin(calib)] if calib else [],
        layers=[LayerRecord(name=f"layer{index}", loss=0.1, bits_per_weight=4.0, seconds=1.0) for index in range(210)],
        effective_bits=4.25,
    )
    folder = store.run_dir(run_id) / "scores"
    folder.mkdir(parents=True)
    (folder.parent / "record.json").write_text(record.to_json(), encoding="utf-8")
    names = list(PLAIN) if recipe == "none" else ALL
    for text in TEXTS:
        values = 1 + rng.uniform(0, 0.1, len(names))
        totals = rng.normal(0, 0.1, (len(names), N_CLUSTERS))
        score = Score(
            run_id=run_id,
            task=text,
            protocol="f" * 64,
            protocol_values={"windows": N_ITEMS},
            origin=origin(text),
            metrics=[
                Metric(name=name, value=float(value), stderr=0.01, n=N_ITEMS, higher_is_better=False)
                for name, value in zip(names, values, strict=True)
            ],
            n_items=N_ITEMS,
            n_clusters=N_CLUSTERS,
            clusters="e" * 64,
            n_tokens=N_ITEMS * 511,
            n_bytes=N_ITEMS * 2000,
            environment={"device": "cpu", "threads": 2},
        )
        path = store.score_path(run_id, text, "f" * 64)
        path.write_text(score.to_json(), encoding="utf-8")
        np.save(path.with_suffix(".totals.npy"), totals - totals.mean(axis=1, keepdims=True))


def build(root: Path, n_draws: int) -> tuple[Store, Manifest]:
    """The store and its sweep."""
    store, rng, cells = Store(root), np.random.default_rng(0), []
    grid: list[tuple[str, str | None, int]] = [(f"free{index}", None, 0) for index in range(5)]
    grid += itertools.product([f"recipe{index}" for index in range(10)], SETS, range(n_draws))
    write_run(store, "none", "none", None, 0, rng)
    for recipe, calib, draw in grid:
        run_id = f"{recipe}-{calib}-{draw}"
        write_run(store, run_id, recipe, calib, draw, rng)
        cells.append(
            CellEntry(
                key=run_id,
                choices={"model": "m", "calib": calib or TEXTS[0], "quantizer": recipe, "scale": "quick"},
                overrides=[f"calib={calib or TEXTS[0]}", f"quantizer={recipe}", f"calib.draw={draw}"],
                tasks=dict.fromkeys(TEXTS, "f" * 64),
                task_origins={text: origin(text) for text in TEXTS},
                calib_origins=[origin(calib)] if calib else [],
                status="done",
                run_id=run_id,
                baseline_run_id="none",
                data_free=calib is None,
            )
        )
    return store, Manifest(name="many", overrides=[], cells=cells)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--report", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store, manifest = build(Path(folder), given.draws)
        started = time.process_time()
        scores = SweepScores(store, manifest)
        for name, made in (("results.csv", collated), ("comparisons.csv", compared)):
            frame = made([scores])
            size = len(csv_text(frame)) / 2**20
            took, memory = time.process_time() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
            print(f"{name}: {len(frame):,d} rows, {size:.0f} MiB, in {took:.1f} s, {memory:.2f} GiB so far")
            started = time.process_time()
        if given.report is not None:
            given.report.write_text(html_of([scores]), encoding="utf-8")
            took, size = time.process_time() - started, given.report.stat().st_size / 1e6
            print(f"report of {len(manifest.cells):,d} cells: {size:.1f} MB, in {took:.1f} s")


def html_of(sweeps: list[SweepScores]) -> str:
    """The report."""
    content = gathered(sweeps)
    return html(content, sections(content))


if __name__ == "__main__":
    main()
