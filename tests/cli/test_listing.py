"""`quantbench list`, in process."""

from __future__ import annotations

from pathlib import Path

import pytest

from quantbench.cli.listing import list_options
from quantbench.config.groups import GROUPS


def test_a_set_of_a_family_that_is_not_there_does_not_hide_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "calib"
    folder.mkdir()
    (folder / "mine.yaml").write_text("# calib=mine: a slip\npath: mine.csv\nfamily: urgensy\nlanguage: en\n")
    assert list_options(["calib", "--config-dir", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    (row,) = (line for line in lines if line.startswith("mine "))
    assert "urgensy (no such family)" in row
    assert any(line.startswith("wiki_sample ") and "en" in line for line in lines)


@pytest.mark.parametrize("name", [group.name for group in GROUPS if group.listed])
def test_every_listed_group_has_options_with_descriptions(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert list_options([name]) == 0
    head, *options = capsys.readouterr().out.split("\n\n")[0].splitlines()
    assert head == f"{'+sweep' if name == 'sweep' else name}="
    assert options
    assert all(len(line.split()) > 1 for line in options), "each says what it is"
