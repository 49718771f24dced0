"""Controls whose outcome is known: what reads no data cannot vary with data, and full precision is itself."""

from __future__ import annotations

import json

import pandas as pd

from command import Workdir


def test_cells_without_data_are_runs_of_their_own_and_do_not_vary(workdir: Workdir) -> None:
    grid = ["quantizer=none,rtn,gptq", "calib.draw=0,1", "replicate=1", "save=none"]
    done = workdir.run("-m", *grid, "share_data_free=false")
    assert done.returncode == 0, done.stderr
    (path,) = workdir.outputs.glob("sweeps/*/results.csv")
    results = pd.read_csv(path)
    kl = results[(results.metric == "kl") & (results.calib == "local")]
    assert len(kl) == kl.run_id.nunique() == 6
    values = {name: sorted(rows.value) for name, rows in kl.groupby("quantizer")}
    assert values["none"] == [0, 0]
    assert 0 < values["rtn"][0] == values["rtn"][1]
    assert 0 < values["gptq"][0] < values["gptq"][1]
    assert all(list(rows.draw) == [0, 1] and set(rows.replicate) == {1} for _, rows in kl.groupby("quantizer"))
    (baseline,) = set(kl.baseline)
    full = results[(results.metric == "perplexity") & (results.quantizer == "none")]
    assert {baseline} < set(full.run_id)
    assert len(full) == 3
    assert full.value.nunique() == 1
    records = [json.loads(record.read_text()) for record in workdir.outputs.glob("runs/*/record.json")]
    weights = [record["fingerprints"]["weights"] for record in records if record["choices"]["quantizer"] == "rtn"]
    assert len(weights) == 2
    assert len(set(weights)) == 1
