"""The yamls of the pages on evaluations and calibration sets, outside the repository, by the real command."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import pandas as pd
import pytest

from command import Workdir
from prompts import long_llama
from tiny import save_tiny_model

DOCS = Path(__file__).parents[2] / "docs"
_FILE = re.compile(r"^```\w+ file=(\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def place(tmp_path: Path) -> Workdir:
    """A place with the files of a page, and data of the kind it describes."""
    made = Workdir(tmp_path)
    save_tiny_model(tmp_path / "model", long_llama())
    for page in ("add_an_evaluation.md", "own_data.md"):
        for name, text in _FILE.findall((DOCS / page).read_text()):
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    words = random.Random(1)
    messages = [" ".join("".join(words.choices("klmnop", k=4)) for _ in range(6)) for _ in range(120)]
    (tmp_path / "support").mkdir()
    for split, part in (("train", messages[:60]), ("test", messages[60:])):
        lines = [json.dumps({"message": text, "level": i % 3}) for i, text in enumerate(part)]
        (tmp_path / "support" / f"{split}.jsonl").write_text("\n".join(lines))
    rows = [f"{text},{('low', 'high', 'unknown')[i % 3]},{i // 4}" for i, text in enumerate(messages)]
    (tmp_path / "tickets.csv").write_text("\n".join(["message,level,customer", *rows]))
    return made


def run(place: Workdir, *arguments: str) -> pd.DataFrame:
    base = [one for one in place.base if not one.startswith(("calib=", "calib.source."))]
    chosen = (
        [] if any(one.startswith("calib=") for one in arguments) else ["calib=local", f"calib.source.path={place.text}"]
    )
    done = place.run("--config-dir=mylab/conf", *base, *chosen, *arguments, base=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "accuracy (share of items; higher is better)" in done.stdout
    (path,) = place.outputs.glob("sweeps/*/results.csv")
    return pd.read_csv(path)


def test_a_label_task_is_one_yaml(place: Workdir) -> None:
    frame = run(place, "quantizer=rtn", "quantizer.weight.group_size=16", "eval=support", "eval.tasks.support.shots=3")
    found = frame[frame["metric"] == "accuracy"]
    assert set(found["task"]) == {"support"}
    assert set(found["family"]) == {"urgency"}
    assert (found["n"] == 16).all()
    assert found["stderr"].notna().all()


def test_a_calibration_set_of_rows_is_in_distribution_to_its_own_test(place: Workdir) -> None:
    frame = run(place, "quantizer=gptq", "quantizer.weight.group_size=16", "calib=tickets")
    found = frame[(frame["metric"] == "accuracy") & (frame["quantizer"] == "gptq")]
    assert found["in_distribution"].tolist() == [True]
    assert found["calib_tokens"].tolist() == [128]
    assert "unknown" not in set(frame["distribution"])
