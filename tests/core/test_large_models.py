"""Models that do not fit into the memory there is, through the command, under a limit that the system enforces."""

from __future__ import annotations

import json
import os
import random
import sys
from pathlib import Path
from typing import Any

import pytest

from limited import run_limited
from sharded import save_sharded

pytestmark = [pytest.mark.slow]

MIB = 2**20
WORDS = [f"{a}{b}{c}" for a in "bdfgklmnprst" for b in "aeiou" for c in "nrstl"]
SMALL: dict[str, Any] = {"hidden_size": 1024, "intermediate_size": 2816, "num_attention_heads": 16, "vocab_size": 500}
SEVEN_BILLION: dict[str, Any] = {
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_attention_heads": 32,
    "vocab_size": 32000,
}


def own_text(folder: Path) -> Path:
    words = random.Random(0)
    documents = [" ".join(words.choice(WORDS) for _ in range(120)) for _ in range(60)]
    path = folder / "text.txt"
    path.write_text("\n\n".join(documents), encoding="utf-8")
    return path


def out_of_memory(folder: Path) -> None:
    """What is read of a model is then counted to who reads it."""
    for path in folder.glob("*.safetensors"):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def scored(folder: Path, model: Path, limit: int, *overrides: str) -> dict[str, Any]:
    """The metrics of a recipe on the model, quantized and evaluated with `limit` bytes of memory."""
    text = own_text(folder)
    out_of_memory(model)
    given = ["model=local", f"model.path={model}", "model.dtype=float32", "calib=local", f"calib.path={text}"]
    given += ["calib.n=2", "calib.length=64", "scale.window=64", "scale.windows=2", "threads=1"]
    done = run_limited([sys.executable, "-m", "quantbench", *given, *overrides], limit, folder)
    assert done.returncode == 0, done.stdout + done.stderr
    (record,) = (
        found
        for path in folder.glob("outputs/runs/*/record.json")
        if (found := json.loads(path.read_text(encoding="utf-8")))["choices"]["quantizer"] != "none"
    )
    assert len(record["layers"]) == 7 * json.loads((model / "config.json").read_text())["num_hidden_layers"]
    (score,) = (folder / "outputs" / "runs" / record["run_id"] / "scores").glob("*.json")
    return {one["name"]: one["value"] for one in json.loads(score.read_text(encoding="utf-8"))["metrics"]}


@pytest.mark.timeout(2400)
def test_a_model_shaped_as_one_of_7b_is_quantized_and_evaluated_in_less_memory_than_its_weights_take(
    tmp_path: Path,
) -> None:
    size, limit = save_sharded(tmp_path / "model", num_hidden_layers=8, **SEVEN_BILLION), 5600 * MIB
    assert size > 1.25 * limit
    metrics = scored(tmp_path, tmp_path / "model", limit, "quantizer=gptq_paper")
    assert 0 < metrics["kl"] < 1


@pytest.mark.parametrize("blocks", [8, 32])
def test_memory_does_not_follow_depth(blocks: int, tmp_path: Path) -> None:
    size, limit = save_sharded(tmp_path / "model", num_hidden_layers=blocks, **SMALL), 1200 * MIB
    assert (size > limit) == (blocks == 32)
    metrics = scored(tmp_path, tmp_path / "model", limit, "quantizer=gptq_paper")
    assert 0 < metrics["kl"] < 1
