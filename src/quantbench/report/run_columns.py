"""What results.csv says of a run and of a test text, the same for every metric."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from quantbench.core.origin import Origin
from quantbench.report.columns import ResultRow
from quantbench.report.pairs import model_dtype
from quantbench.report.scored import Scored
from quantbench.report.settings import settings
from quantbench.report.sweep_runs import SweepRun


def run_columns(run: SweepRun) -> ResultRow:
    """Identity, recipe and calibration of a run."""
    row: ResultRow = {
        "sweep": run.sweep,
        "model": run.model,
        "calib": run.calib,
        "calib_variant": run.calib_variant,
        **_calib_columns(run.calib_origins),
        "quantizer": run.quantizer,
        "variant": run.variant,
        "scale": run.scale,
        "run_id": run.run_id,
        "baseline": run.baseline,
        "status": run.status,
        "error": run.error,
        "data_free": run.data_free,
        "full_precision": run.full_precision,
        "seed": run.identity("seed"),
        "draw": run.identity("draw"),
        "replicate": run.identity("replicate"),
        "effective_bits": run.bits,
    }
    record = run.record
    if record is not None:
        calibration = record.calibration or {}
        weight = record.config.get("quantizer", {}).get("weight") or {}
        row["settings"] = settings(record.config.get("quantizer", {})) or None
        row["weight_bits"] = _number(weight, "bits")
        row["group_size"] = None if weight.get("group_size") is None else str(weight["group_size"])
        row["bits_model"], row["kv_bits"] = record.bits_model, record.kv_bits
        row["calib_tokens"] = calibration.get("n_tokens")
        row["calib_n"], row["calib_length"] = calibration.get("n"), calibration.get("length")
        row["fallbacks"] = " ".join(f"{name}={count}" for name, count in sorted(record.fallbacks.items())) or None
    return row


def task_columns(run: SweepRun, task: str, protocol: str | None) -> ResultRow:
    """The test text, and how far it lies from what the run is calibrated on."""
    origin = run.task_origins[task]
    return {
        "task": task,
        "protocol": protocol,
        "distribution": origin.name,
        "family": origin.family,
        "domain": origin.domain,
        "language": origin.language,
        "in_distribution": run.in_distribution(task),
        "relation": run.relation(task),
    }


def score_columns(run: SweepRun, scored: Scored) -> ResultRow:
    """How much was scored, and on what machine."""
    score = scored.score
    threads = score.environment.get("threads")
    return {
        "n_clusters": score.n_clusters,
        "n_tokens": score.n_tokens,
        "cut_prompts": score.cut_prompts,
        "cut_answers": score.cut_answers,
        "overlap_13gram": None if score.overlap is None else float(score.overlap["share"]),
        "model_dtype": model_dtype(run, scored),
        "device": score.environment.get("gpu") or score.environment.get("device"),
        "threads": threads if isinstance(threads, int) else None,
        "schema_version": score.schema_version,
    }


def _calib_columns(origins: Sequence[Origin]) -> ResultRow:
    """What was calibrated on, by what the data are, whatever the option was called."""

    def joined(values: Iterable[str]) -> str | None:
        return " + ".join(dict.fromkeys(values)) or None

    return {
        "calib_distribution": joined(one.name for one in origins),
        "calib_family": joined(one.family for one in origins),
        "calib_domain": joined(one.domain for one in origins),
        "calib_language": joined(one.language for one in origins),
    }


def _number(settings: Mapping[str, Any], key: str) -> float | None:
    value = settings.get(key)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
