"""The command on a CUDA device, in processes of its own: same tables everywhere, faults that cost one cell."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pandas as pd
import pytest
import torch

from command import Done, Workdir

if not torch.cuda.is_available():
    pytest.skip("torch sees no CUDA device", allow_module_level=True)

FAULTY = '''
import torch
from quantbench.core.component import Part, component
from quantbench.formats.quantize import quantize
from quantbench.rounding.base import Rounded


@component
class Faulty(Part):
    """Nearest rounding on the device; one of a name makes the device fail, one asks for more memory than any has."""

    name: str

    def round(self, weight, stats, format):
        assert weight.is_cuda
        if self.name == "c_memory":
            torch.empty(1 << 46, dtype=torch.uint8, device=weight.device)
        if self.name == "b_fault":
            weight[:, torch.full((1,), 1 << 20, device=weight.device)].sum().item()
        return Rounded(quantize(weight, format))
'''

RECIPE = """
_target_: quantbench.pipeline.recipe.Recipe
weight: {_target_: quantbench.formats.int.IntFormat, bits: 4, group_size: 16, symmetric: false}
rounding: {_target_: faulty.Faulty, name: ""}
policy: {_target_: quantbench.pipeline.recipe.Policy}
"""

GRID = ["-m", "quantizer=rtn,gptq,awq", "quantizer.weight.group_size=16"]


@pytest.fixture
def workdir(tmp_path: Path) -> Workdir:
    return Workdir(tmp_path)


def results(outputs: Path) -> pd.DataFrame:
    (path,) = outputs.glob("sweeps/*/results.csv")
    return pd.read_csv(path)


def ok(done: Done) -> Done:
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def test_auto_is_the_gpu_and_its_memory_is_recorded(workdir: Workdir) -> None:
    ok(workdir.run(*GRID))
    costs = [json.loads(line) for path in workdir.outputs.glob("runs/*/costs.jsonl") for line in path.open()]
    assert {cost["device"] for cost in costs} == {"cuda"}
    assert all(cost["peak_device_bytes"] > 0 for cost in costs if cost["what"].startswith("evaluate"))
    record = json.loads(next(workdir.outputs.glob("runs/*/record.json")).read_text())
    assert record["environment"]["gpu"] == torch.cuda.get_device_name()
    first = results(workdir.outputs)
    ok(workdir.run(*GRID, "device=cpu", outputs=workdir.folder / "cpu"))
    second = results(workdir.folder / "cpu")
    same = ["run_id", "task", "metric"]
    both = first.merge(second, on=same, suffixes=("", "_cpu"))
    assert len(both) == len(first) == len(second)
    close = (both.value - both.value_cpu).abs() <= 0.03 * both.value_cpu.abs() + 1e-4
    assert close.all(), both[~close][[*same, "value", "value_cpu"]].to_string()


def test_workers_of_one_gpu_give_the_tables_of_one_process(workdir: Workdir) -> None:
    ok(workdir.run(*GRID))
    other = workdir.folder / "workers"
    cluster = ["cluster=local", "cluster.workers=2", "cluster.poll_seconds=1"]
    ok(workdir.run(*GRID, *cluster, outputs=other))
    pd.testing.assert_frame_equal(results(workdir.outputs), results(other), check_exact=True)
    tables = "sweeps/*/tables/tables.md"
    assert next(workdir.outputs.glob(tables)).read_text() == next(other.glob(tables)).read_text()


def test_a_device_fault_costs_one_cell(workdir: Workdir) -> None:
    (workdir.folder / "faulty.py").write_text(FAULTY)
    (workdir.folder / "conf" / "quantizer").mkdir(parents=True)
    (workdir.folder / "conf" / "quantizer" / "faulty.yaml").write_text(RECIPE)
    path = os.pathsep.join([str(workdir.folder), os.environ.get("PYTHONPATH", "")])
    names = "quantizer.rounding.name=a,b_fault,c_memory,d"
    grid = ["-m", f"--config-dir={workdir.folder / 'conf'}", "quantizer=faulty", names, "cluster=local"]
    done = workdir.run(*grid, "cluster.poll_seconds=1", PYTHONPATH=path)
    assert done.returncode == 1, done.stderr
    frame = results(workdir.outputs)
    runs = frame[frame.quantizer == "faulty"].drop_duplicates("run_id")
    assert sorted(runs.status) == ["done", "done", "failed", "failed"]
    errors = " ".join(runs.error.dropna())
    assert "out of memory" in errors
    assert "device-side assert" in errors
