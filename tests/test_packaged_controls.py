"""Controls on the packaged real model: what cannot vary does not, the same is the same to the bit, noise is small."""

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

FEW_BLOCKS = "quantizer.policy.keep_last_blocks=26"  # of 30: the others stay in full precision, for time
SMALL = ["scale=smoke", "scale.windows=2", FEW_BLOCKS]
SCALE = ["scale=smoke", "quantizer.weight.group_size=64", FEW_BLOCKS]


def run(outputs: Path, *overrides: str) -> pd.DataFrame:
    """The results of a grid in a process of its own."""
    environment = {**os.environ, "QUANTBENCH_OUTPUTS": str(outputs)}
    command = [sys.executable, "-m", "quantbench", "-m", *overrides, "threads=1", "save=none"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, cwd=outputs)
    assert done.returncode == 0, done.stderr
    (path,) = outputs.glob("sweeps/*/results.csv")
    return pd.read_csv(path)


def records(outputs: Path, quantizer: str) -> list[dict[str, Any]]:
    """The records of a recipe's runs, by the replicate."""
    found = [json.loads(path.read_text()) for path in outputs.glob("runs/*/record.json")]
    own = [record for record in found if record["choices"]["quantizer"] == quantizer]
    return sorted(own, key=lambda record: record["config"].get("replicate", 0))


def test_full_precision_and_data_free_recipes_do_not_vary_when_really_run(tmp_path: Path) -> None:
    grid = ["quantizer=none,rtn,easyquant,self_noise", "calib=wiki_sample,code_sample", "calib.draw=0,1"]
    found = run(tmp_path, *grid, "share_data_free=false", "eval=two_samples", *SMALL)
    cells = found[found.calib.isin(["wiki_sample", "code_sample"])]
    spread = cells.groupby(["quantizer", "task", "metric"]).value.agg(["nunique", "size"])
    assert set(spread["nunique"]) == {1}
    assert set(spread["size"]) == {4}
    null = cells[cells.quantizer == "none"]
    distances = null[null.metric.isin(["kl", "reverse_kl", "kl_max", "kl_p999", "rms_dp"])]
    assert len(distances) >= 8
    assert (distances.value == 0).all()
    assert (null[null.metric == "top1_agreement"].value == 1).all()
    kl = cells[cells.metric == "kl"].groupby("quantizer").value
    assert 0 < kl.max()["self_noise"] < 1e-6 < 1e-4 < kl.min()["easyquant"]
    for name in ("rtn", "easyquant"):
        assert len({record["fingerprints"]["weights"] for record in records(tmp_path, name)}) == 1
    variance = pd.read_csv(next(tmp_path.glob("sweeps/*/variance.csv")))
    between = variance[variance.source.isin(["draws", "calibration sets"])]
    assert set(between.recipe) == {"none", "rtn", "easyquant", "self_noise"}
    assert (between.variance == 0).all()


def test_the_same_seed_twice_is_the_same_to_the_bit_and_a_replicate_is_not(tmp_path: Path) -> None:
    values = []
    for name, replicates in (("first", "0,1"), ("second", "0")):
        outputs = tmp_path / name
        outputs.mkdir()
        grid = ["quantizer=gptq", "calib=wiki_sample", "calib.n=4", f"replicate={replicates}"]
        found = run(outputs, *grid, "eval=two_samples", *SCALE)
        own = found[(found.quantizer == "gptq") & (found.replicate == 0)]
        values.append(own.set_index(["task", "metric"]).value)
    one, other = values
    pd.testing.assert_series_equal(one, other, check_exact=True)
    first, again = records(tmp_path / "first", "gptq"), records(tmp_path / "second", "gptq")
    assert len(first) == 2
    weights = [record["fingerprints"]["weights"] for record in (*first, *again)]
    assert weights[0] == weights[2] != weights[1]


def test_text_without_sense_can_be_calibrated_on_in_a_grid(tmp_path: Path) -> None:
    found = run(tmp_path, "quantizer=gptq", "calib=random_tokens,shuffled,wiki_sample", "eval=two_samples", *SCALE)
    gptq = found[(found.quantizer == "gptq") & (found.metric == "kl")]
    assert set(gptq.status) == {"done"}
    controls = gptq[gptq.calib != "wiki_sample"]
    assert set(controls.calib) == {"random_tokens", "shuffled tokens of wiki_sample"}
    assert set(controls.relation) == {"control"}
    means = gptq.groupby("calib").value.mean()
    assert means["wiki_sample"] < means["random_tokens"]  # its tokens in another order may do as well on so little
    assert gptq.run_id.nunique() == 3
