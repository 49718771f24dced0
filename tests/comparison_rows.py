"""Made-up rows of comparisons.csv."""

from __future__ import annotations

from typing import Any

import pandas as pd

from quantbench.report.columns import DATA_FREE


def comparison(**fields: Any) -> dict[str, Any]:
    """gptq against awq on code, both calibrated on wiki: 0.12 nats of KL worse, [0.05, 0.19]."""
    given: dict[str, Any] = {
        "sweep": "demo",
        "model": "smollm2",
        "scale": "smoke",
        "kind": "recipe",
        "metric": "kl",
        "unit": "nats/token",
        "higher_is_better": False,
        "task": "code",
        "protocol": "a" * 64,
        "distribution": "code",
        "relation": "near OOD",
        "recipe": "gptq",
        "calib": "wiki",
        "reference_recipe": "awq",
        "reference_calib": "wiki",
        "run_ids": "g0 g1 g2",
        "reference_run_ids": "a0 a1 a2",
        "bits": 4.3125,
        "reference_bits": 4.3125,
        "same_bits": True,
        "n_items": 96,
        "n_clusters": 24,
        "n_draws": 3,
        "n_reference_draws": 3,
        "value": 0.32,
        "reference_value": 0.2,
        "difference": 0.12,
        "stderr": 0.034,
        "low": 0.05,
        "high": 0.19,
        "ratio": None,
        "ratio_low": None,
        "ratio_high": None,
        "p": 0.001,
        "p_holm": 0.003,
        "p_bh": 0.002,
        "family": "recipe pairs x columns of kl: 3",
        "margin": None,
        "p_equivalence": None,
        "detectable": 0.1,
        "verdict": "worse",
        "reliable": True,
        "note": "",
    }
    unknown = fields.keys() - given.keys()
    assert not unknown, unknown
    return given | fields


def undecided(**fields: Any) -> dict[str, Any]:
    """The same on news, where nothing is shown."""
    known = {"task": "news", "distribution": "news", "difference": 0.01, "low": -0.01, "high": 0.03, "p_holm": 0.4}
    return comparison(**({**known, "detectable": 0.03, "verdict": "undecided"} | fields))


def against_full(**fields: Any) -> dict[str, Any]:
    """Perplexity of gptq on code against full precision: 3.1 % higher, [1.2, 5.0] %."""
    known = {
        "kind": "full precision",
        "metric": "perplexity",
        "unit": "per token",
        "reference_recipe": "none",
        "reference_calib": DATA_FREE,
        "reference_run_ids": "fp",
        "reference_bits": 32.0,
        "same_bits": False,
        "value": 20.62,
        "reference_value": 20.0,
        "difference": 0.62,
        "stderr": 0.0092,
        "low": 0.24,
        "high": 1.0,
        "ratio": 1.031,
        "ratio_low": 1.012,
        "ratio_high": 1.05,
        "detectable": 0.02,
    }
    return comparison(**(known | fields))


def gap(**fields: Any) -> dict[str, Any]:
    """gptq on code: calibrated on wiki, not on code."""
    known = {
        "kind": "transfer gap",
        "reference_recipe": "gptq",
        "reference_calib": "code",
        "reference_run_ids": "c0 c1 c2",
    }
    return comparison(**(known | fields))


def frame(*rows: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame(list(rows), columns=list(comparison()))
