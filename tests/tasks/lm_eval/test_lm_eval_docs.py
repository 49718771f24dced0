"""The worked example of docs/add_an_evaluation.md, from a folder outside the repository."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from command import Workdir

PAGE = Path(__file__).parents[3] / "docs" / "add_an_evaluation.md"
_FILE = re.compile(r"^```\w+ file=(\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.slow
def test_the_suite_and_the_task_of_the_page_run(tmp_path: Path) -> None:
    workdir = Workdir(tmp_path)
    for name, text in _FILE.findall(PAGE.read_text()):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    arguments = ["--config-dir=mine", "quantizer=rtn", "eval=commute"]
    done = workdir.run(*arguments, HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path / "home"))
    assert done.returncode == 0, done.stderr
    (quantized,) = tmp_path.glob("outputs/runs/*/weights.json")
    (file,) = (f for f in quantized.parent.glob("scores/capitals-*.json") if len(f.suffixes) == 1)
    score = json.loads(file.read_text())
    described = {"name": "capitals", "family": "qa", "domain": "capitals", "language": "en"}
    assert {key: score["origin"][key] for key in described} == described
    assert {one["name"] for one in score["metrics"]} == {"acc", "acc_norm"}
    assert score["protocol_values"]["subtasks"]["capitals"]["shots"] == 2
    items = pd.read_parquet(file.with_suffix(".parquet"))
    assert items["item"].tolist() == [f"capitals/{i}" for i in range(3)]
    assert items["log_likelihoods"].map(len).tolist() == [3, 2, 3]
    # One token a byte, and the space before each city.
    assert items["n_tokens"].tolist() == [len(" Paris Lyon Nice"), len(" Nairobi Mombasa"), len(" Lima Cusco Arequipa")]
