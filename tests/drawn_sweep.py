"""Stored runs of which each has its settings, its calibration draw and its loss; two windows a cluster."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from quantbench.store.manifest import CellEntry, Manifest
from quantbench.store.store import Store
from stored_sweep import BASE_LOSS, PROTOCOLS, cell, origin, record, score

CLUSTERS = 12


def windows(task: str, loss: float, noise: int, clusters: int = CLUSTERS) -> pd.DataFrame:
    """Windows two a cluster: hard ones lose more; `noise` seeds what a run alone does to them."""
    n = 2 * clusters
    generator = np.random.default_rng(sorted(PROTOCOLS).index(task))
    hard, own = generator.normal(0, 0.2, n), np.random.default_rng(noise).normal(0, 0.02, n)
    kl = loss * (1 + 0.5 * hard) * (1 + own)
    return pd.DataFrame(
        {
            "item": [f"{task}:{index}" for index in range(n)],
            "document": [f"{task}:{index // 2}" for index in range(n)],
            "cluster": [f"{task}:{index // 2:02d}" for index in range(n)],
            "n_tokens": np.full(n, 511),
            "n_bytes": np.full(n, 2300),
            "nll": BASE_LOSS[task] + hard + kl,
            **({"kl": kl / 4, "top1_agreement": 1 - kl / 8} if loss else {}),
        }
    )


class Grid:
    """Runs and the cells of a sweep over them."""

    def __init__(self, store: Store, tasks: tuple[str, ...] = ("wiki", "news")) -> None:
        self.store = store
        self.tasks = tasks
        self.cells: list[CellEntry] = []
        self.add("fp", "none", 0.0, None, effective_bits=None, bits_model=32.0)
        self.cells.clear()

    def add(
        self,
        run_id: str,
        quantizer: str,
        loss: float,
        calib: str | None,
        draw: int = 0,
        bits: int = 4,
        sizes: dict[str, Any] | None = None,
        environment: dict[str, Any] | None = None,
        scored: bool = True,
        **fields: Any,
    ) -> None:
        """A run and its cell; calib: what it is calibrated on, None for a recipe that reads no data."""
        weight = {"weight": {"_target_": "quantbench.formats.int.IntFormat", "bits": bits}}
        rounding = {"rounding": {"_target_": f"quantbench.{quantizer}", "damp": 0.01}}
        recipe: dict[str, Any] = {} if quantizer == "none" else weight | ({} if calib is None else rounding)
        config: dict[str, Any] = {"numerics_version": 1, "model": {"path": "m"}, "quantizer": recipe}
        if calib is not None:
            config |= {"calib": {"source": {"hub": calib}, "n": 8, "draw": draw, **(sizes or {})}, "seed": 42}
        known: dict[str, Any] = {"config": config, "calibration": None, "effective_bits": bits + 0.25}
        if calib is not None:
            known["calibration"] = {"name": calib, "n_tokens": 4096, "seed": 42, "draw": draw}
            known["origins"] = [origin(calib)]
        known["choices"] = {"model": "smollm2", "quantizer": quantizer, "scale": "smoke"}
        self.store.save_run(record(run_id, **(known | fields)))
        for task in self.tasks if scored else ():
            frame = windows(task, loss, noise=sum(map(ord, run_id)) + 31 * draw)
            where = {"torch": "2.13", "device": "cpu", "threads": 1} | (environment or {})
            self.store.save_score(score(run_id, frame, task, environment=where), frame)
        tasks = {task: PROTOCOLS[task] for task in self.tasks}
        told = {"key": run_id, "tasks": tasks, "data_free": calib is None}
        self.cells.append(cell(calib or "wiki", quantizer, run_id, **told))

    def manifest(self, name: str = "demo") -> Manifest:
        """A sweep of the cells since the last."""
        cells, self.cells = self.cells, []
        manifest = Manifest(name=name, overrides=[], cells=cells)
        self.store.save_manifest(manifest)
        return manifest
