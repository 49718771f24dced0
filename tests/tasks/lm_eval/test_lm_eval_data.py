"""lm-eval's own tasks on real data, offline; and its command line on the weights of a quantized model."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lm_eval_tasks import long_llama, write_tasks
from tiny import save_tiny_model

ROOT = Path(__file__).parents[3]
DATA = Path(os.environ.get("QUANTBENCH_HF_HOME", ROOT / "../shared/hf_home"))

needs_data = pytest.mark.skipif(
    not (DATA / "datasets").is_dir(), reason="QUANTBENCH_HF_HOME names no offline Hugging Face cache"
)

OFFLINE = (
    *(
        "piqa",
        "hellaswag",
        "arc_easy",
        "arc_challenge",
        "winogrande",
        "boolq",
        "openbookqa",
        "lambada_openai",
        "wikitext",
    ),
    *("c4", "social_iqa", "commonsense_qa", "copa", "cb", "sst2", "rte", "gsm8k", "truthfulqa_mc1", "truthfulqa_mc2"),
    *("bbq", "mmlu", "ceval-valid", "cmmlu"),
)
GROUPS = {"mmlu": 57, "ceval-valid": 52, "cmmlu": 67}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    for name in ("datasets", "hub"):
        if (DATA / name).is_dir():
            shutil.copytree(DATA / name, home / name)
    return home


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"), long_llama())


def run(arguments: list[str], place: Path, home: Path) -> str:
    """A command in a process of its own, without network; what it says."""
    environment = os.environ | {
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "PYTHONPATH": str(ROOT / "src"),
        "OMP_NUM_THREADS": "1",
        "QUANTBENCH_CACHE": os.environ.get("QUANTBENCH_CACHE", str(place / "cache")),
    }
    done = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=place, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-2000:]
    return done.stdout + done.stderr


def cell(model: Path, place: Path, *overrides: str) -> list[str]:
    text = place / "calib.txt"
    text.write_text("\n\n".join(f"Paragraph {i} of a text that has some {i * i} words in it." * 9 for i in range(40)))
    chosen = ["model=local", f"model.path={model}", "calib=local", f"calib.path={text}", "calib.n=2"]
    return ["quantbench", *chosen, "calib.length=64", "scale=smoke", "threads=1", "eval=lm_eval", *overrides]


def scores(place: Path, quantizer: str) -> dict[str, dict[str, Any]]:
    """Task -> metric -> value of the runs of a recipe."""
    found = {}
    for record in place.glob("outputs/runs/*/record.json"):
        if json.loads(record.read_text())["choices"]["quantizer"] == quantizer:
            for file in record.parent.glob("scores/*.json"):
                if len(file.suffixes) == 1:
                    score = json.loads(file.read_text())
                    found[score["task"]] = {one["name"]: one["value"] for one in score["metrics"]}
    return found


@needs_data
@pytest.mark.slow
def test_numbers_equal_those_of_lm_evals_command_on_the_same_weights(model: Path, home: Path, tmp_path: Path) -> None:
    names = ["piqa", "arc_easy", "gsm8k"]
    options = ["quantizer=rtn", f"eval.names=[{','.join(names)}]", "eval.limit=6", "eval.batch_size=2"]
    run(cell(model, tmp_path, *options), tmp_path, home)
    saved = save_quantized(model, tmp_path)
    command = ["lm_eval", "--model", "hf", "--model_args", f"pretrained={saved},dtype=float32", "--batch_size", "2"]
    command += [
        "--tasks",
        ",".join(names),
        "--limit",
        "6",
        "--device",
        "cpu",
        "--output_path",
        "theirs",
        "--log_samples",
    ]
    run(command, tmp_path, home)
    (report,) = tmp_path.glob("theirs/**/results_*.json")
    theirs = json.loads(report.read_text())["results"]
    ours = scores(tmp_path, "rtn")
    keys = {"exact_match": "exact_match,strict-match", "exact_match_flexible_extract": "exact_match,flexible-extract"}
    for name in names:
        assert ours[name], name
        for metric, value in ours[name].items():
            assert value == pytest.approx(theirs[name][keys.get(metric, f"{metric},none")], abs=1e-9), (name, metric)
    compare_log_likelihoods(tmp_path, ["piqa", "arc_easy"])


def save_quantized(model: Path, place: Path) -> Path:
    """The quantized weights of the run in the store, as a model folder of their own."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from quantbench.core import tensors
    from quantbench.models.handle import ModelHandle
    from quantbench.pipeline.artifact import Artifact

    (weights,) = place.glob("outputs/runs/*/weights.safetensors")
    handle = ModelHandle(AutoModelForCausalLM.from_pretrained(model), AutoTokenizer.from_pretrained(model), "saved")
    Artifact.from_tensors(tensors.load(weights), Artifact.read_spec(weights.with_suffix(".json"))).install(handle)
    handle.model.save_pretrained(place / "saved")
    handle.tokenizer.save_pretrained(place / "saved")
    return place / "saved"


def compare_log_likelihoods(place: Path, names: list[str]) -> None:
    """Item by item: the choices' log-likelihoods in our items and in the samples that lm-eval wrote."""
    import pandas as pd

    for name in names:
        (run_folder,) = {p.parent.parent for p in place.glob(f"outputs/runs/*/scores/{name}-*.parquet")} & {
            p.parent for p in place.glob("outputs/runs/*/weights.safetensors")
        }
        (file,) = run_folder.glob(f"scores/{name}-*.parquet")
        (samples,) = place.glob(f"theirs/**/samples_{name}_*.jsonl")
        found = [json.loads(line) for line in samples.read_text().splitlines()]
        theirs = {f"{name}/{one['doc_id']}": [float(r[0][0]) for r in one["resps"]] for one in found}
        ours = pd.read_parquet(file)
        assert len(ours) == len(theirs) == 6
        for item, values in zip(ours["item"], ours["log_likelihoods"], strict=True):
            assert list(values) == pytest.approx(theirs[item], abs=1e-9)


@needs_data
@pytest.mark.slow
def test_every_task_that_has_data_offline_runs_through(model: Path, home: Path, tmp_path: Path) -> None:
    options = ["quantizer=none", f"eval.names=[{','.join(OFFLINE)}]", "eval.limit=1"]
    said = run(cell(model, tmp_path, *options), tmp_path, home)
    found = scores(tmp_path, "none")
    assert set(found) == set(OFFLINE)
    assert all(found.values())
    for file in tmp_path.glob("outputs/runs/*/scores/*.lm_eval.json"):
        name = file.name.rpartition("-")[0]
        effective = json.loads(file.read_text())["n-samples"]
        assert len(effective) == GROUPS.get(name, 1)
        assert all(one["effective"] == 1 for one in effective.values())
    assert "Traceback" not in said


@pytest.mark.slow
def test_a_command_with_tasks_of_ones_own(model: Path, tmp_path: Path) -> None:
    folder = write_tasks(tmp_path / "own")
    options = [f"eval.include_path={folder}", "eval.names=[own_choice,own_group]", "eval.shots=1", "quantizer=rtn"]
    run(cell(model, tmp_path, *options), tmp_path, tmp_path / "home")
    assert set(scores(tmp_path, "rtn")) == set(scores(tmp_path, "none")) == {"own_choice", "own_group"}
    said = run(["quantbench", "collate", "--all"], tmp_path, tmp_path / "home")
    assert "own_choice" in next(tmp_path.glob("outputs/sweeps/*/results.csv")).read_text(), said
