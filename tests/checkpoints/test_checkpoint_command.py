"""Checkpoints by the command: beside recipes in one grid, once, and refused before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from checkpoint_files import AWQ_CONFIG, GPTQ_CONFIG, awq, gptq, with_config, write_checkpoint
from command import Workdir
from tiny import tiny_llama


@pytest.mark.slow
def test_checkpoints_stand_beside_recipes(workdir: Workdir, tmp_path: Path) -> None:
    model = tiny_llama()
    paths = [
        write_checkpoint(tmp_path / "made" / "awq-4bit", model, awq(), AWQ_CONFIG),
        write_checkpoint(tmp_path / "made" / "gptq-4bit", model, gptq(), GPTQ_CONFIG),
    ]
    grid = [
        "quantizer=checkpoint,rtn",
        f"quantizer.path={','.join(map(str, paths))}",
        "quantizer.calib=pile",
        "quantizer.weight.group_size=16",
    ]
    done = workdir.run("-m", *grid)
    assert done.returncode == 0, done.stderr
    assert "checkpoint path=awq-4bit" in done.stdout
    (path,) = workdir.outputs.glob("sweeps/*/results.csv")
    results = pd.read_csv(path)
    kl = results[results.metric == "kl"].set_index(["quantizer", "variant"])
    assert set(kl[kl.index.get_level_values(0) == "checkpoint"].calib) == {"pile"}
    # Packed by rounding to nearest, as rtn does it; but the files hold embeddings and head in float16.
    values: dict[Any, float] = {name: float(row.value) for name, row in kl.iterrows()}
    (rtn,) = [value for name, value in values.items() if name[0] == "rtn"]
    assert values["checkpoint", "path=awq-4bit"] == values["checkpoint", "path=gptq-4bit"] > 0
    assert values["checkpoint", "path=awq-4bit"] == pytest.approx(rtn, rel=0.02)
    bits: dict[Any, float] = {name: float(row.effective_bits) for name, row in kl.iterrows()}
    assert bits["checkpoint", "path=awq-4bit"] < bits["checkpoint", "path=gptq-4bit"]
    comparisons = pd.read_csv(path.with_name("comparisons.csv"))
    names = zip(comparisons.recipe, comparisons.reference_recipe, strict=True)
    pairs = {(str(one).split()[0], str(other).split()[0]) for one, other in names}
    assert {("checkpoint", "rtn"), ("rtn", "checkpoint")} & pairs
    first = path.read_bytes()
    runs = {one.name: one.stat().st_mtime_ns for one in workdir.outputs.glob("runs/*/record.json")}
    again = workdir.run("-m", *grid)
    assert again.returncode == 0, again.stderr
    assert path.read_bytes() == first
    assert runs == {one.name: one.stat().st_mtime_ns for one in workdir.outputs.glob("runs/*/record.json")}


def test_what_cannot_be_read_runs_nothing(workdir: Workdir, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "made", tiny_llama(), awq(), {**AWQ_CONFIG, "version": "gemv"})
    done = workdir.run("quantizer=checkpoint", f"quantizer.path={folder}")
    assert done.returncode == 2
    assert "quantization_config.version='gemv': quantbench reads gemm" in done.stderr
    with_config(folder, quantization_config=AWQ_CONFIG, max_position_embeddings=8)
    done = workdir.run("quantizer=checkpoint", f"quantizer.path={folder}")
    assert done.returncode == 2
    assert "at most 8" in done.stderr
    done = workdir.run("quantizer=checkpoint")
    assert done.returncode == 2
    assert "quantizer.path" in done.stderr
    assert not list(workdir.outputs.glob("runs/*/record.json"))
