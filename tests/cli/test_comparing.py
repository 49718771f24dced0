"""`compare`, `pack` and `merge` as they are typed, on stored results."""

from __future__ import annotations

from pathlib import Path

import pytest

from drawn_sweep import Grid
from quantbench.cli.comparing import compare
from quantbench.cli.packing import merge, pack
from quantbench.core.errors import StoreError
from quantbench.store.store import Store


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("outputs")
    grid = Grid(Store(root), tasks=("wiki",))
    grid.add("aa11", "rtn", 0.25, None)
    for draw in range(2):
        grid.add(f"bb1{draw}", "gptq", 0.1 + 0.01 * draw, "wiki", draw)
    grid.manifest("bits")
    return root


def said(capsys: pytest.CaptureFixture[str], outputs: Path, *words: str) -> str:
    assert compare([*words, "--output-dir", str(outputs)]) == 0
    return capsys.readouterr().out


def test_recipes_side_by_side_test_nothing(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, outputs, "bits")
    assert text.startswith("Recipes: bits\nModel: smollm2\n")
    assert text.endswith("Nothing is tested here: --against X tests each recipe against X.\n")


def test_what_is_shown_is_written(outputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = ["--markdown", str(tmp_path / "a.md"), "--csv", str(tmp_path / "a.csv")]
    text = said(capsys, outputs, "bit", "--against", "rtn", "--metric", "kl", *files)
    answer = "kl against rtn, of 1 comparison: better in 1."
    assert text.startswith("bits: against rtn\n")
    assert text.rstrip().endswith(answer)
    assert (tmp_path / "a.md").read_text(encoding="utf-8").rstrip().endswith(answer)
    assert (tmp_path / "a.csv").read_text(encoding="utf-8").rstrip().endswith(f"# {answer}")


def test_two_names_of_runs_are_two_runs(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, outputs, "aa", "bb10")
    assert text.startswith("Run aa11 (rtn) against run bb10 (gptq, calibrated on wiki)\n")
    assert "quantizer.rounding.damp" in text
    with pytest.raises(StoreError, match=r"one is a run and the other none.*--against RUN"):
        said(capsys, outputs, "bits", "aa11")
    with pytest.raises(StoreError, match=r"bb1: 2 runs begin like that: bb10, bb11"):
        said(capsys, outputs, "aa11", "bb1")
    with pytest.raises(StoreError, match=r"compare zz: no such sweep"):
        said(capsys, outputs, "zz")
    with pytest.raises(StoreError, match=r"compare: name a sweep, or two runs. Sweeps in .*: bits"):
        said(capsys, outputs)
    with pytest.raises(StoreError, match=r"--margin says what is equivalent to something"):
        said(capsys, outputs, "bits", "--margin", "kl=0.1")


def test_a_merged_sweep_compares_as_the_packed_one(
    outputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "part.tar.xz"
    assert pack(["bits", "--to", str(file), "--output-dir", str(outputs)]) == 0
    assert capsys.readouterr().out.startswith(f"{file}: 4 runs, 4 scores, ")
    here = tmp_path / "here"
    for added in ("4 runs, 4 scores added; 0 runs, 0 scores", "0 runs, 0 scores added; 4 runs, 4 scores"):
        assert merge([str(file), "--output-dir", str(here)]) == 0
        text = capsys.readouterr().out
        assert text == f"{file}: {added} known before\nTables: quantbench collate bits\n"
    words = ("bits", "--against", "rtn")
    assert said(capsys, here, *words) == said(capsys, outputs, *words)
    with pytest.raises(StoreError, match=r"pack zz: no such sweep"):
        pack(["zz", "--to", str(file), "--output-dir", str(outputs)])
