"""Where cells run is not seen in their numbers."""

from __future__ import annotations

import os

import pytest

from slow_workdir import SlowWorkdir

pytestmark = pytest.mark.slurm


@pytest.mark.model
def test_the_packaged_model_gives_the_same_tables_with_all_launchers(workdir: SlowWorkdir) -> None:
    chosen = ["quantizer=gptq", "calib=wiki_sample,code_sample", "eval=two_samples", "scale=smoke", "threads=1"]
    chosen += ["calib.n=4", "calib.length=128", "scale.window=128", "scale.windows=2"]
    chosen += ["quantizer.policy.keep=[mlp,k_proj,v_proj,o_proj]"]  # an eighth of the weights shows it as well
    found = []
    for cluster, options in (
        ("slurm", ["cluster.cells_per_job=1", "cluster.poll_seconds=1"]),
        ("local", ["cluster.workers=2", "cluster.poll_seconds=1"]),
        ("inprocess", []),
    ):
        outputs = workdir.folder / cluster
        # The cache of the user, not that of the folder: the model is 93 MB.
        cache = os.environ.get("QUANTBENCH_CACHE", "")
        line = ["-m", *chosen, f"cluster={cluster}", *options]
        done = workdir.quantbench(*line, outputs=outputs, QUANTBENCH_CACHE=cache)
        assert done.returncode == 0, done.stdout + done.stderr
        tables = sorted(outputs.glob("sweeps/*/tables/*"))
        found.append({path.name: path.read_bytes() for path in [*tables, *outputs.glob("sweeps/*/results.csv")]})
    assert len(found[0]) > 1
    assert found[0] == found[1] == found[2]


def test_all_launchers_give_the_same_numbers(workdir: SlowWorkdir) -> None:
    chosen = ["quantizer=rtn,gptq,awq", "quantizer.weight.group_size=16"]
    tables = []
    for cluster, options in (
        ("inprocess", []),
        ("local", ["cluster.workers=2", "cluster.poll_seconds=0.5"]),
        ("slurm", ["cluster.cells_per_job=2", "cluster.poll_seconds=0.5"]),
    ):
        outputs = workdir.folder / cluster
        done = workdir.run("-m", *chosen, f"cluster={cluster}", *options, outputs=outputs)
        assert done.returncode == 0, done.stdout + done.stderr
        (table,) = outputs.glob("sweeps/*/results.csv")
        tables.append(table.read_bytes())
    assert tables[0] == tables[1] == tables[2]
