"""prepare fetches, says what it found, and finds out whether it can be read again without a network."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from command import Done, Workdir
from fake_hub import Branch, FakeHub

COMMIT = "a" * 40
CARD = """---
configs:
- config_name: 3.0.0
  data_files:
  - {split: train, path: train.jsonl}
  - {split: test, path: test.jsonl}
---
"""

PAGE = Path(__file__).parents[2] / "docs" / "own_data.md"
(CNN,) = re.findall(r"^```yaml file=mine/calib/cnn.yaml\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
MODULE = """
import os
from dataclasses import dataclass
from quantbench.core.errors import DataError
from quantbench.core.origin import Origin
from quantbench.datasets.documents import Documents

@dataclass(frozen=True, kw_only=True)
class Fleeting:
    origin: Origin
    def load(self, split): return Documents("fleeting", split, ["text"], "1")
    def prepare(self):
        if os.environ.get("HF_HUB_OFFLINE"):
            raise DataError("text fleeting: it was never kept")
        return "fleeting: in memory"
"""


def jsonl(first: int, n: int) -> bytes:
    bodies = [f"review {i}: " + " ".join(f"word{i * j % 97}" for j in range(40)) for i in range(first, first + n)]
    return "".join(json.dumps({"article": body}) + "\n" for body in bodies).encode()


CHOSEN = ("calib=cnn", "eval.sets=[cnn]")


@pytest.fixture
def mylab(workdir: Workdir) -> Path:
    """A folder with the data set of the page, and nothing else."""
    conf = workdir.folder / "mylab"
    (conf / "calib").mkdir(parents=True)
    (conf / "calib" / "cnn.yaml").write_text(CNN)
    return conf


def run(workdir: Workdir, command: list[str], conf: Path, *overrides: str, **environment: str) -> Done:
    wanted = [a for a in workdir.base if not a.startswith(("calib=local", "calib.path"))]
    line = [sys.executable, "-m", "quantbench", *command, f"--config-dir={conf}", *(wanted if overrides else [])]
    known = workdir.environment(None, **environment)
    kept = {name: value for name, value in known.items() if name in environment or not name.startswith("HF_")}
    done = [*line, *overrides]
    return subprocess.run(done, env=kept, cwd=workdir.folder, capture_output=True, text=True, check=False)


def test_a_text_by_one_yaml_is_fetched_and_a_run_then_needs_no_network(workdir: Workdir, mylab: Path) -> None:
    files = {"README.md": CARD.encode(), "train.jsonl": jsonl(0, 60), "test.jsonl": jsonl(60, 40)}
    home = {"HF_HOME": str(workdir.folder / "hf")}
    with FakeHub({"abisee/cnn_dailymail": {"main": Branch(COMMIT, files)}}) as hub:
        done = run(workdir, ["prepare"], mylab, *CHOSEN, HF_ENDPOINT=hub.url, **home)
        served = len(hub.requests)
    assert done.returncode == 0, done.stderr
    assert f"cnn: abisee/cnn_dailymail at {COMMIT}, 60 train documents, 40 test documents, " in done.stdout
    assert "KiB of text" in done.stdout
    assert "read again without a network" in done.stdout
    assert "export HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1" in done.stdout
    assert f"export HF_HOME={workdir.folder / 'hf'}" in done.stdout
    assert f"export QUANTBENCH_CACHE={workdir.folder / 'cache'}" in done.stdout
    assert "  without a network: " not in done.stdout  # the same commit and counts
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", **home}
    recipe = ["quantizer=gptq", "quantizer.weight.group_size=16"]
    ran = run(workdir, [], mylab, *CHOSEN, *recipe, **offline)
    assert ran.returncode == 0, ran.stderr
    assert "= calibrated on the test distribution" in ran.stdout
    assert len(hub.requests) == served


def test_a_calibration_set_of_ones_own_is_listed_and_mixed(workdir: Workdir, mylab: Path) -> None:
    listed = run(workdir, ["list", "calib"], mylab, PYTHONPROFILEIMPORTTIME="1")
    assert any(row.split()[:5] == ["cnn", "lm", "(lm)", "news", "en"] for row in listed.stdout.splitlines())
    assert "torch" not in listed.stderr.split()
    parts = ("calib=mix", "calib.parts.c4=0.5", "calib.parts.cnn=0.5")
    shown = run(workdir, ["--cfg=job", "--resolve"], mylab, *parts)
    assert shown.returncode == 0, shown.stderr
    assert "cnn: 0.5" in shown.stdout


def test_what_cannot_be_read_again_is_an_error(workdir: Workdir, mylab: Path) -> None:
    (workdir.folder / "mylab" / "fleeting.py").write_text(MODULE)
    (mylab / "calib" / "cnn.yaml").write_text("# gone\n_target_: fleeting.Fleeting\nfamily: lm\n")
    done = run(workdir, ["prepare"], mylab, *CHOSEN, PYTHONPATH=str(workdir.folder / "mylab"))
    assert done.returncode != 0
    assert "cannot be read again without a network, so runs on compute nodes would fail" in done.stderr
    assert "text fleeting: it was never kept" in done.stderr
