"""The packaged model in every format that transformers reads here, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.model, pytest.mark.slow]

FEW = "quantizer.policy.keep_last_blocks=28"
SCALE = ["calib=news_sample", "scale=smoke", "scale.window=64", "scale.windows=2", "report=false", "threads=1"]
ENOUGH = ["--windows", "1", "--length", "48"]


def command(outputs: Path, *arguments: str) -> str:
    environment = {**os.environ, "QUANTBENCH_OUTPUTS": str(outputs)}
    done = subprocess.run(
        [sys.executable, "-m", "quantbench", *arguments],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
        cwd=outputs,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("recipe", "to"),
    [
        (["quantizer=rtn"], "gguf"),  # groups of 128 in widths of 576 and 1536
        (["quantizer=rtn"], "compressed-tensors"),
        (["quantizer=nvfp4"], "compressed-tensors"),
    ],
)
def test_the_packaged_model_is_exported(
    recipe: list[str], to: str, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    if to == "compressed-tensors":
        pytest.importorskip(
            "compressed_tensors", reason="compressed-tensors is not installed: pip install -e '.[export]'"
        )
    outputs = tmp_path_factory.getbasetemp() / "outputs"
    outputs.mkdir(exist_ok=True)
    command(outputs, *recipe, FEW, *SCALE)
    records = [json.loads(path.read_text()) for path in outputs.glob("runs/*/record.json")]
    (run,) = (one["run_id"] for one in records if one["choices"]["quantizer"] == recipe[0].partition("=")[2])
    printed = command(outputs, "export", run, "--to", to, str(tmp_path / "out"), *ENOUGH)
    assert "Equivalent." in printed
    proof = json.loads((tmp_path / "out/proof.json").read_text())
    assert proof["kl"] <= (1e-3 if "nvfp4" in recipe[0] else 1e-6)
    assert "license: apache-2.0" in (tmp_path / "out/README.md").read_text()
