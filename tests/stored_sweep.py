"""A small finished sweep in a store: two calibration sets, a data-free recipe, a failure and full precision."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from quantbench.core.origin import Origin
from quantbench.metrics.clusters import clusters_digest
from quantbench.metrics.metrics import measure
from quantbench.store.manifest import CellEntry, Manifest
from quantbench.store.records import RunRecord, Score
from quantbench.store.store import Store

N_WINDOWS = 8
PROTOCOLS = {"wiki": "a" * 64, "news": "b" * 64, "reviews": "c" * 64}
BASE_LOSS = {"wiki": 2.9, "news": 3.3, "reviews": 3.8}

MakeRecord = Callable[..., RunRecord]
MakeItems = Callable[..., pd.DataFrame]
MakeScore = Callable[..., Score]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "outputs")


def origin(name: str, **fields: Any) -> Origin:
    """A text of running English; every two of these are near."""
    return Origin(**({"name": name, "family": "lm", "domain": name, "language": "en"} | fields))


def record(run_id: str, **fields: Any) -> RunRecord:
    given: dict[str, Any] = {
        "run_id": run_id,
        "status": "quantized",
        "choices": {"model": "smollm2", "quantizer": "gptq", "calib": "wiki"},
        "config": {"quantizer": {"weight": {"_target_": "quantbench.formats.int.Int", "bits": 3, "group_size": 64}}},
        "fingerprints": {"weights": "f" * 64},
        "environment": {"quantbench": "0.1.0", "torch": "2.13"},
        "created": "2026-01-01T00:00:00+00:00",
        "calibration": {"name": "wiki", "n_tokens": 16384, "seed": 42, "draw": 0},
        "effective_bits": 3.25,
    }
    return RunRecord(**(given | fields))


def items(task: str = "wiki", loss: float = 0.0, kl: float | None = None, n: int = N_WINDOWS) -> pd.DataFrame:
    """n windows that differ much between each other, little between runs: the loss of full precision plus `loss`."""
    generator = np.random.default_rng(sorted(PROTOCOLS).index(task))
    difficulty = BASE_LOSS[task] + generator.normal(0, 0.2, n)
    spread = np.linspace(0.8, 1.2, n)
    frame = pd.DataFrame(
        {
            "item": [f"{task}:{index}" for index in range(n)],
            "document": [f"{task}:doc{index // 2}" for index in range(n)],
            "cluster": [f"{task}:{index}" for index in range(n)],
            "n_tokens": np.full(n, 511),
            "n_bytes": np.full(n, 2300),
            "nll": difficulty + loss * spread,
        }
    )
    return frame if kl is None else frame.assign(kl=kl * spread, top1_agreement=1 - kl * spread)


def score(run_id: str, frame: pd.DataFrame, task: str = "wiki", **fields: Any) -> Score:
    names = ["perplexity", "bits_per_byte", *(["kl", "top1_agreement"] if "kl" in frame else [])]
    given: dict[str, Any] = {
        "run_id": run_id,
        "task": task,
        "protocol": PROTOCOLS[task],
        "protocol_values": {"windows": len(frame), "length": 512},
        "origin": origin(task),
        "metrics": [measure(name, frame) for name in names],
        "n_items": len(frame),
        "n_clusters": frame["cluster"].nunique(),
        "clusters": clusters_digest(frame["item"].tolist(), frame["cluster"].tolist()),
        "n_tokens": int(frame["n_tokens"].sum()),
        "n_bytes": int(frame["n_bytes"].sum()),
        "environment": {"torch": "2.13"},
        "cut_prompts": int(frame["truncated"].sum()) if "truncated" in frame else None,
        "cut_answers": int(frame["unfinished"].sum()) if "unfinished" in frame else None,
    }
    return Score(**(given | fields))


def cell(calib: str, quantizer: str, run_id: str | None, **fields: Any) -> CellEntry:
    tasks = fields.get("tasks", dict(PROTOCOLS))
    given: dict[str, Any] = {
        "key": f"{calib}/{quantizer}",
        "choices": {"model": "smollm2", "calib": calib, "quantizer": quantizer, "scale": "smoke"},
        "overrides": [f"calib={calib}", f"quantizer={quantizer}", "threads=2"],
        "run_id": run_id,
        "baseline_run_id": "fp",
        "tasks": tasks,
        "task_origins": {task: origin(task) for task in tasks},
        "calib_origins": [] if fields.get("data_free") else [origin(calib)],
        "status": "done",
    }
    return CellEntry(**(given | fields))


def build(root: Path, order: int = 1) -> tuple[Store, Manifest]:
    """The sweep; `order` -1 stores its parts the other way round, as an interrupted sweep might."""
    store = Store(root)
    losses = {"fp": 0.0, "wiki-gptq": 0.09, "news-gptq": 0.07, "rtn": 0.25}
    for run_id, loss in list(losses.items())[::order]:
        calibrated = run_id.endswith("gptq")
        known: dict[str, Any] = {"origins": [origin(run_id.removesuffix("-gptq"))]} if calibrated else {}
        if not calibrated:
            known["calibration"] = None
        if run_id == "fp":
            known |= {"choices": {"model": "smollm2", "quantizer": "none"}, "effective_bits": 16.0, "config": {}}
        if run_id == "news-gptq":
            known["fallbacks"] = {"damping_raised": 2}
        store.save_run(record(run_id, **known))
        for task in list(PROTOCOLS)[::order]:
            own = run_id == f"{task}-gptq"
            frame = items(task, loss * (0.8 if own else 1.0), None if run_id == "fp" else loss / 4)
            overlap = {"share": 0.125 if own else 0.0} if calibrated else None
            store.save_score(score(run_id, frame, task, overlap=overlap), frame)
    store.save_run(record("reviews-gptq", status="failed", error={"type": "ModelError", "message": "not finite"}))
    cells = [
        cell("wiki", "gptq", "wiki-gptq"),
        cell("news", "gptq", "news-gptq"),
        cell("reviews", "gptq", "reviews-gptq", status="failed", error="ModelError: layer 3 is\nnot finite"),
        cell("wiki", "rtn", "rtn", data_free=True),
        cell("news", "rtn", "rtn", data_free=True),
    ]
    manifest = Manifest(name="demo", overrides=["scale=smoke"], cells=cells, caption={"scale": "smoke"})
    store.save_manifest(manifest)
    return store, manifest


@pytest.fixture
def make_record() -> MakeRecord:
    return record


@pytest.fixture
def make_items() -> MakeItems:
    return items


@pytest.fixture
def make_score() -> MakeScore:
    return score


@pytest.fixture
def make_cell() -> Callable[..., CellEntry]:
    return cell


@pytest.fixture
def build_sweep() -> Callable[..., tuple[Store, Manifest]]:
    return build
