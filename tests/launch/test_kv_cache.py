"""A run with a quantized key-value cache, end to end: named in its record and in the results."""

from __future__ import annotations

import json

import pandas as pd

from command import Workdir


def test_the_cache_is_named_in_record_and_results(workdir: Workdir) -> None:
    done = workdir.answer("-m", "quantizer=kv4", "quantizer.kv_cache.bits=3", "quantizer.kv_cache.residual=2")
    assert done.returncode == 0, done.stdout + done.stderr
    records = [json.loads(path.read_text()) for path in workdir.outputs.glob("runs/*/record.json")]
    (record,) = (record for record in records if record["kv_bits"] is not None)
    assert record["kv_bits"] == 3 + 32 / 8  # heads of 8 channels
    assert record["notes"] == ["kv cache: per token 3 bit, groups of head, residual 2, applied causally"]
    assert record["effective_bits"] is None
    (path,) = workdir.outputs.glob("sweeps/*/results.csv")
    frame = pd.read_csv(path)
    assert set(frame[frame.quantizer == "kv4"].kv_bits) == {7.0}
    assert (frame[(frame.quantizer == "kv4") & (frame.metric == "kl")].value > 0).all()
