"""The main job on the packaged real model, in a subprocess as a user starts it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

pytestmark = [pytest.mark.model, pytest.mark.slow]

SCALE = ["calib.n=8", "calib.length=256", "scale.window=256", "scale.windows=6", "quantizer.weight.group_size=64"]


def run(outputs: Path, *overrides: str) -> str:
    environment = {**os.environ, "QUANTBENCH_OUTPUTS": str(outputs)}
    command = [sys.executable, "-m", "quantbench", "-m", *overrides]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, cwd=outputs)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    outputs = tmp_path_factory.mktemp("outputs")
    printed = run(outputs, "quantizer=rtn,gptq", "calib=news_sample", *SCALE)
    assert "kl (nats/token; lower is better): smollm2_135m_gguf" in printed
    (path,) = outputs.glob("sweeps/*/results.csv")
    first = path.read_bytes()
    again = run(outputs, "calib=news_sample", "quantizer=rtn,gptq", *SCALE, "threads=2")
    assert "kl (nats/token; lower is better)" in again
    assert path.read_bytes() == first
    return pd.read_csv(path)


def value(results: pd.DataFrame, quantizer: str, metric: str, task: str = "news_sample") -> float:
    chosen = results[(results.quantizer == quantizer) & (results.metric == metric) & (results.task == task)]
    assert len(chosen) == 1
    return float(chosen.value.iloc[0])


def test_the_null_is_exactly_zero(results: pd.DataFrame) -> None:
    for task in ("wiki_sample", "news_sample", "code_sample"):
        assert value(results, "none", "kl", task) == 0
        assert value(results, "none", "top1_agreement", task) == 1


def test_gptq_is_closer_to_full_precision_than_nearest_on_the_text_it_was_calibrated_on(results: pd.DataFrame) -> None:
    assert value(results, "gptq", "kl") < 0.8 * value(results, "rtn", "kl")


def test_quantization_costs_perplexity(results: pd.DataFrame) -> None:
    full = value(results, "none", "perplexity")
    assert 5 < full < value(results, "gptq", "perplexity") < value(results, "rtn", "perplexity") < 2 * full


def test_in_distribution_is_the_calibration_text_only(results: pd.DataFrame) -> None:
    gptq = results[results.quantizer == "gptq"]
    assert set(gptq[gptq.in_distribution == True].task) == {"news_sample"}  # noqa: E712
