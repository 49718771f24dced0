"""prepare fetches, says what it found, and finds out whether it can be read again without a network."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from command import Done, Workplace
from fake_hub import Branch, FakeHub

COMMIT = "a" * 40
TEXT = """# reviews on the hub
_target_: quantbench.texts.hub.HubText
name: reviews
family: lm
path: own/reviews
config: null
data_files: {train: "part-*.jsonl", test: test.jsonl}
splits: {train: train, test: test}
column: body
revision: null
converted: false
joiner: "\\n\\n"
max_documents: null
about: {domain: reviews, language: en, licence: ours, relatives: [], size: 100 reviews}
"""
CALIB = """# calib=reviews: reviews on the hub
defaults:
  - /draw@_here_: standard
  - /sampler@sampler: joined_windows
  - /text@source: reviews
  - /task@natural.reviews: reviews
  - _self_
"""
TASK = """# eval task: perplexity and divergence on reviews of the hub
defaults:
  - /text@source: reviews
  - _self_
_target_: quantbench.evals.windows.TextTask
split: test
window: ${scale.window}
n_windows: ${scale.windows}
bos: first
max_documents: null
max_tokens: null
"""
MODULE = """
import os
from dataclasses import dataclass
from quantbench.errors import DataError
from quantbench.texts.base import Documents

@dataclass(frozen=True, kw_only=True)
class Fleeting:
    name: str = "fleeting"
    family: str = "lm"
    def load(self, split): return Documents("fleeting", split, ["text"], "1")
    def prepare(self):
        if os.environ.get("HF_HUB_OFFLINE"):
            raise DataError("text fleeting: it was never kept")
        return "fleeting: in memory"
"""


def jsonl(first: int, n: int) -> bytes:
    bodies = [f"review {i}: " + " ".join(f"word{i * j % 97}" for j in range(40)) for i in range(first, first + n)]
    return "".join(json.dumps({"body": body}) + "\n" for body in bodies).encode()


@pytest.fixture
def mylab(place: Workplace) -> Path:
    conf = place.folder / "mylab" / "conf"
    for group, text in (("text", TEXT), ("calib", CALIB), ("task", TASK)):
        (conf / group).mkdir(parents=True)
        (conf / group / "reviews.yaml").write_text(text)
    return conf


def prepare(place: Workplace, conf: Path, **environment: str) -> Done:
    wanted = [a for a in place.base if not a.startswith(("calib=local", "calib.source.path"))]
    line = [sys.executable, "-m", "quantbench", "prepare", f"--config-dir={conf}", *wanted, "calib=reviews"]
    known = place.environment(None, **environment)
    kept = {name: value for name, value in known.items() if name in environment or not name.startswith("HF_")}
    return subprocess.run(line, env=kept, cwd=place.folder, capture_output=True, text=True, check=False)


def test_it_says_commit_size_and_what_to_set_and_a_run_then_needs_no_network(place: Workplace, mylab: Path) -> None:
    files = {"README.md": b"# x\n", "part-1.jsonl": jsonl(0, 60), "part-2.jsonl": b"", "test.jsonl": jsonl(60, 40)}
    home = {"HF_HOME": str(place.folder / "hf")}
    with FakeHub({"own/reviews": {"main": Branch(COMMIT, files)}}) as hub:
        done = prepare(place, mylab, HF_ENDPOINT=hub.url, **home)
        served = len(hub.requests)
    assert done.returncode == 0, done.stderr
    assert f"text reviews: own/reviews at {COMMIT}, 60 train documents, 40 test documents, " in done.stdout
    assert "KiB of text" in done.stdout
    assert "read again without a network" in done.stdout
    assert "export HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1" in done.stdout
    assert f"export HF_HOME={place.folder / 'hf'}" in done.stdout
    assert f"export QUANTBENCH_CACHE={place.folder / 'cache'}" in done.stdout
    assert "without a network: " not in done.stdout  # the same commit and counts
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", **home}
    again = prepare(place, mylab, **offline)
    assert "it was read without a network" in again.stdout, again.stderr
    line = [a for a in place.base if not a.startswith(("calib=local", "calib.source.path"))]
    flags = [f"--config-dir={mylab}", "calib=reviews", "quantizer=gptq", "quantizer.weight.group_size=16"]
    ran = place.run(*flags, *line, base=False, **offline)
    assert ran.returncode == 0, ran.stderr
    assert "= calibrated on the test distribution" in ran.stdout
    assert len(hub.requests) == served
    listed = place.run("list", "calib", f"--config-dir={mylab}", base=False, PYTHONPROFILEIMPORTTIME="1")
    assert any(row.split()[:5] == ["reviews", "reviews", "lm", "reviews", "en"] for row in listed.stdout.splitlines())
    assert "torch" not in listed.stderr.split()


def test_what_cannot_be_read_again_is_an_error(place: Workplace, mylab: Path) -> None:
    (place.folder / "mylab" / "fleeting.py").write_text(MODULE)
    (mylab / "text" / "reviews.yaml").write_text("# gone\n_target_: fleeting.Fleeting\nname: fleeting\nfamily: lm\n")
    done = prepare(place, mylab, PYTHONPATH=str(place.folder / "mylab"))
    assert done.returncode != 0
    assert "cannot be read again without a network, so runs on compute nodes would fail" in done.stderr
    assert "text fleeting: it was never kept" in done.stderr
