"""The packaged model in every format of files, read again by a process of its own: the logits of the stored run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

pytestmark = [pytest.mark.model, pytest.mark.slow]

FEW = "quantizer.policy.keep_last_blocks=28"  # of 30: in full precision, for time, where a format can hold that
SCALE = ["calib=news_sample", "calib.n=4", "scale=smoke", "scale.window=64", "scale.windows=2"]
HOW = ["eval=two_samples", "report=false", "threads=1"]
EIGHT = ["quantizer.weight.bits=8", "quantizer.weight.symmetric=true", "quantizer.weight.scale_convention=full_range"]
EIGHT += ["quantizer.weight.group_size=32", "quantizer.weight.scale_dtype=float16"]
ENOUGH = ["--windows", "1", "--length", "48"]

PROVEN = [
    ("gptq", "dense", 1e-6),
    ("nvfp4", "dense", 1e-6),
    ("gptq", "compressed-tensors", 1e-6),  # four bits, asymmetric
    ("rtn", "compressed-tensors", 1e-6),  # eight bits, symmetric
    ("zeroquant", "compressed-tensors", 1e-2),  # W8A8
    ("fp8_w8a8", "compressed-tensors", 1e-2),
    ("nvfp4", "compressed-tensors", 1e-3),
    ("mxfp4", "compressed-tensors", 1e-3),
    ("rtn", "gguf", 1e-6),
    ("mxfp4", "gguf", 1e-6),
]
"""What transformers reads here: a recipe, a format, and the KL divergence that its reader's arithmetic allows."""


def command(outputs: Path, *arguments: str) -> str:
    environment = {**os.environ, "QUANTBENCH_OUTPUTS": str(outputs)}
    line = [sys.executable, "-m", "quantbench", *arguments]
    done = subprocess.run(line, capture_output=True, text=True, env=environment, check=False, cwd=outputs)
    assert done.returncode == 0, done.stderr
    return done.stdout


def records(outputs: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in outputs.glob("runs/*/record.json")]


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A folder with a run of each recipe, and their ids."""
    outputs = tmp_path_factory.mktemp("outputs")
    command(outputs, "-m", "quantizer=zeroquant,fp8_w8a8,nvfp4,mxfp4", FEW, *SCALE, *HOW)
    command(outputs, "quantizer=gptq", "quantizer.weight.group_size=64", *SCALE, *HOW)
    command(outputs, "quantizer=rtn", *EIGHT, *SCALE, *HOW)
    return outputs, {record["choices"]["quantizer"]: record["run_id"] for record in records(outputs)}


@pytest.mark.parametrize(("recipe", "to", "allowed"), PROVEN, ids=[f"{recipe}-{to}" for recipe, to, _ in PROVEN])
def test_a_new_process_reads_the_logits_of_the_run(
    recipe: str, to: str, allowed: float, stored: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    if to == "compressed-tensors":
        pytest.importorskip(
            "compressed_tensors", reason="compressed-tensors is not installed: pip install -e '.[export]'"
        )
    outputs, runs = stored
    printed = command(outputs, "export", runs[recipe], "--to", to, str(tmp_path / "out"), *ENOUGH)
    assert "Equivalent." in printed
    proof = json.loads((tmp_path / "out/proof.json").read_text())
    assert 0 <= proof["kl"] <= allowed
    assert "license: apache-2.0" in (tmp_path / "out/README.md").read_text()


def test_files_of_gptq_and_awq_are_scored_like_the_runs_that_they_are_of(
    stored: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    outputs, runs = stored
    made = [("gptq", "gptq"), ("rtn", "gptq"), ("gptq", "awq")]
    for recipe, to in made:
        command(outputs, "export", runs[recipe], "--to", to, str(tmp_path / f"{recipe}-{to}"), "--without-proof")
    paths = ",".join(str(tmp_path / f"{recipe}-{to}") for recipe, to in made)
    command(outputs, "-m", "quantizer=checkpoint", f"quantizer.path={paths}", *SCALE[2:], *HOW)
    frame = pd.concat([pd.read_csv(path) for path in outputs.glob("sweeps/*/results.csv")])
    kl = frame[frame.metric == "kl"].drop_duplicates(["run_id", "task"]).pivot_table("value", "run_id", "task")
    runs_of_files = {one["run_id"] for one in records(outputs) if one["choices"]["quantizer"] == "checkpoint"}
    scored = kl.loc[sorted(runs_of_files)].to_numpy().tolist()
    expected = kl.loc[[runs[recipe] for recipe, _ in made]]
    assert sorted(scored) == sorted(expected.to_numpy().tolist())
    assert (expected.to_numpy() > 0).all()
