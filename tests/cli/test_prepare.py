"""prepare fetches, says what it found, and finds out whether it can be read again without a network."""

from __future__ import annotations

import json

import pytest

from command import Done, Workdir
from doc_pages import blocks
from fake_hub import Branch, FakeHub
from inside import in_process

COMMIT = "a" * 40
CARD = """---
configs:
- config_name: 3.0.0
  data_files:
  - {split: train, path: train.jsonl}
  - {split: test, path: test.jsonl}
---
"""
MODULE = """
import os
from quantbench.core.component import component
from quantbench.core.errors import DataError
from quantbench.core.origin import Origin
from quantbench.datasets.documents import Documents

@component
class Fleeting:
    origin: Origin
    def load(self, split): return Documents(self.origin.name, split, ["text"], "1")
    def prepare(self):
        if os.environ.get("HF_HUB_OFFLINE"):
            raise DataError("data fleeting: it was never kept")
        return "fleeting: in memory"
"""
CHOSEN = ("calib=cnn", "eval.sets=[cnn]", "quantizer=gptq", "quantizer.weight.group_size=16")


def jsonl(first: int, n: int) -> bytes:
    bodies = [f"review {i}: " + " ".join(f"word{i * j % 97}" for j in range(40)) for i in range(first, first + n)]
    return "".join(json.dumps({"article": body}) + "\n" for body in bodies).encode()


@pytest.fixture
def lab(workdir: Workdir) -> Workdir:
    """A folder `mine` with the set of the hub of the page on one's own data, and nothing else."""
    (cnn,) = [block for block in blocks("yaml") if block.file == "mine/calib/cnn.yaml"]
    path = workdir.folder / cnn.file
    path.parent.mkdir(parents=True)
    path.write_text(cnn.text)
    return workdir


def run(lab: Workdir, command: list[str], *overrides: str, **environment: str) -> Done:
    """The command, in an interpreter that knows of the hub from its environment alone."""
    base = [one for one in lab.base if not one.startswith(("calib=", "calib.path"))]
    home: dict[str, str] = {"HF_HOME": str(lab.folder / "hf"), "HF_HUB_OFFLINE": "", "HF_DATASETS_OFFLINE": ""}
    return lab.subprocess_of(*command, "--config-dir=mine", *base, *overrides, outputs=None, **(home | environment))


@pytest.mark.slow
def test_a_set_by_one_yaml_is_fetched_and_a_run_then_needs_no_network(lab: Workdir) -> None:
    files = {"README.md": CARD.encode(), "train.jsonl": jsonl(0, 60), "test.jsonl": jsonl(60, 40)}
    with FakeHub({"abisee/cnn_dailymail": {"main": Branch(COMMIT, files)}}) as hub:
        done = run(lab, ["prepare"], *CHOSEN, HF_ENDPOINT=hub.url)
        served = len(hub.requests)
        assert done.returncode == 0, done.stderr
        assert f"text cnn: abisee/cnn_dailymail at {COMMIT}, 60 train rows, 40 test rows, in the " in done.stdout
        assert "read again without a network" in done.stdout
        assert "export HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1" in done.stdout
        assert f"export HF_HOME={lab.folder / 'hf'}" in done.stdout
        assert f"export QUANTBENCH_CACHE={lab.folder / 'cache'}" in done.stdout
        assert "  without a network: " not in done.stdout  # the same commit and counts
        ran = run(lab, [], *CHOSEN, HF_ENDPOINT=hub.url, HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1")
        assert ran.returncode == 0, ran.stderr
        assert "= calibrated on the test distribution" in ran.stdout
        assert len(hub.requests) == served


def test_what_cannot_be_read_again_is_an_error(lab: Workdir) -> None:
    mine = lab.folder / "mine"
    (mine / "fleeting.py").write_text(MODULE)
    (mine / "calib" / "cnn.yaml").write_text("_target_: fleeting.Fleeting\nname: fleeting\nfamily: lm\n")
    done = run(lab, ["prepare"], *CHOSEN, PYTHONPATH=str(mine))
    assert done.returncode != 0
    assert "cannot be read again without a network, so runs on compute nodes would fail" in done.stderr
    assert "data fleeting: it was never kept" in done.stderr


def test_everything_is_tried_and_what_cannot_be_had_is_listed(workdir: Workdir) -> None:
    options = workdir.folder / "mine" / "calib"
    options.mkdir(parents=True)
    for name in ("absent", "missing"):
        (options / f"{name}.yaml").write_text(f"path: {workdir.folder}/{name}.txt\nfamily: local\ndomain: local\n")
    tested = "eval.sets=[absent,local,missing]"
    ended = in_process(["prepare", "--config-dir=mine", *workdir.base, tested, "quantizer=gptq"], workdir.folder)
    assert ended.status == 1, ended.said
    assert [line.partition(" ")[0] for line in ended.printed.splitlines()] == ["model", "task", "text"]
    first, *problems = ended.said.splitlines()
    assert first == "quantbench: prepare: not everything can be had; what can be is prepared."
    assert [f"{name}.txt" in line for name, line in zip(("absent", "missing"), problems, strict=True)] == [True, True]
