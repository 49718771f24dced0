"""What `status` and captions call cells and scales, and what a grid says of an option that only one of its sets has."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from quantbench.cli import sweeps
from quantbench.cli.commands import show
from quantbench.config.composer import compose_cells
from quantbench.core.errors import ConfigError
from quantbench.launch.overview import Watch, key_of
from quantbench.launch.records import started
from quantbench.launch.state import SweepState
from quantbench.report.collate import collate
from quantbench.report.tables import tables
from quantbench.report.variants import Variants
from quantbench.store.manifest import CellEntry, Manifest
from quantbench.store.records import RunRecord
from quantbench.store.store import Store

PATH = "model.path=/a/long/folder/with/many/parts/and/a/model/in/it"


def entry(bits: int, *more: str, path: str = "a/x.txt") -> CellEntry:
    overrides = ["calib=local", f"calib.path={path}", PATH, "quantizer=gptq", "scale.windows=4", *more]
    overrides.append(f"quantizer.weight.bits={bits}")
    return CellEntry(
        key=" ".join(sorted(overrides)),
        choices={"model": "local", "calib": "local", "quantizer": "gptq", "scale": "quick"},
        overrides=overrides,
        tasks={},
        task_origins={},
        run_id=f"run{len(path)}{bits}",
    )


def status(folder: Path, cells: list[CellEntry], capsys: pytest.CaptureFixture[str]) -> str:
    Store(folder).save_manifest(Manifest(name="demo", overrides=[], cells=cells))
    sweeps.status(["demo", f"--output-dir={folder}"])
    return capsys.readouterr().out


def test_status_names_cells_by_what_tells_them_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = status(tmp_path, [entry(3), entry(4)], capsys)
    assert "quantizer.weight.bits=3" in said
    assert "quantizer.weight.bits=4" in said
    assert "model.path" not in said
    assert "..." not in said
    alone = status(tmp_path / "b", [entry(3)], capsys)
    assert "calib.path=x model.path=it" in alone
    same_stem = status(tmp_path / "c", [entry(3), entry(3, path="bb/x.txt")], capsys)
    assert "calib.path=a/x.txt" in same_stem
    assert "calib.path=bb/x.txt" in same_stem


def test_a_cell_that_ctrl_c_ended_is_interrupted_and_not_lost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = [entry(3), entry(4)]
    sweep = SweepState(tmp_path, "demo")
    ended, killed = (started(key_of(cell), "command-here-1") for cell in cells)
    sweep.save_cell(dataclasses.replace(ended, state="interrupted", error="Ctrl-C"))
    sweep.save_cell(killed)
    views = Watch(sweep, None).look([key_of(cell) for cell in cells], [])
    assert [views[key_of(cell)].state for cell in cells] == ["interrupted", "lost"]
    said = status(tmp_path, cells, capsys)
    assert "ended by Ctrl-C; the same command goes on" in said
    assert "demo: 1 interrupted, 1 lost" in said


def test_a_scale_that_was_changed_says_so() -> None:
    cells = [entry(3, "calib.n=4"), entry(4, "calib.n=4")]
    assert Variants(cells).scale(cells[0]) == "quick with calib.n=4, scale.windows=4"
    differ = [entry(3, "calib.n=4"), entry(3, "calib.n=8")]
    assert Variants(differ).scale(differ[0]) == "quick with scale.windows=4"  # calib.n is shown as a variant


def test_the_changed_scale_stands_above_the_table(
    build_sweep: Callable[..., tuple[Store, Manifest]], tmp_path: Path
) -> None:
    store, manifest = build_sweep(tmp_path)
    changed = [dataclasses.replace(cell, overrides=[*cell.overrides, "scale.windows=4"]) for cell in manifest.cells]
    (table,) = tables(collate(store, [dataclasses.replace(manifest, cells=changed)]), "kl")
    assert table.opening[0] == "Model smollm2, scale smoke with scale.windows=4."


def test_an_option_of_one_set_of_a_grid_is_said_to_be_its_own(tmp_path: Path) -> None:
    text = tmp_path / "a.txt"
    text.write_text("one\n\ntwo")
    with pytest.raises(ConfigError) as caught:
        compose_cells(["-m", "calib=wiki_sample,local", f"calib.path={text}"])
    said = str(caught.value)
    assert said.startswith("calib=wiki_sample: calib: path and package both say where it lies")
    assert "count for every set of the grid (wiki_sample, local); local would take the calib options given here" in said
    with pytest.raises(ConfigError) as caught:
        compose_cells(["calib=wiki_sample", f"calib.path={text}"])
    assert "every set of the grid" not in str(caught.value)


@pytest.mark.parametrize(
    ("sets", "weight", "answer"),
    [
        ("mix,wiki", 1, "mix would take the calib options given here"),
        ("wiki,mix", 2, "mix has them, and refuses their values (calib: calib.parts: the weights wiki=2 add up to 2"),
    ],
)
def test_parts_of_a_mixture_in_a_grid_of_sets_are_said_to_be_the_mixtures(sets: str, weight: int, answer: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose_cells(["-m", f"calib={sets}", f"calib.parts.wiki={weight}"])
    assert f"count for every set of the grid ({sets.replace(',', ', ')}); {answer}" in str(caught.value)


def test_a_run_shows_the_choices_that_it_depends_on_and_not_those_of_its_first_command(
    store: Store, make_record: Callable[..., RunRecord], capsys: pytest.CaptureFixture[str]
) -> None:
    typed = {"model": "smollm2", "calib": "wiki", "quantizer": "rtn", "eval": "auto", "scale": "smoke"}
    plain: dict[str, Any] = {"model": {}, "quantizer": {}}
    store.save_run(make_record("full", choices=typed | {"quantizer": "none"}, config=plain))
    store.save_run(make_record("rtn", choices=typed, config=plain))
    store.save_run(make_record("gptq", choices=typed | {"quantizer": "gptq"}, config=plain | {"calib": {}}))
    for run, expected in (
        ("full", "model: smollm2\n  quantizer: none"),
        ("rtn", "model: smollm2\n  quantizer: rtn"),
        ("gptq", "model: smollm2\n  calib: wiki\n  quantizer: gptq\n  scale: smoke"),
    ):
        assert show([run, f"--output-dir={store.root}"]) == 0
        assert f"\nchoices:\n  {expected}\n\nidentity:" in capsys.readouterr().out
