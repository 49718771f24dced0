"""Cells put together from remembered nodes are those that Hydra composes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.types import RunMode
from quantbench.config.compose import CellMaker, config_dir, resolved

from quantbench.config.factored import Composer
from quantbench.core.errors import ConfigError

AXES = [
    ["quantizer=gptq", "quantizer=w4a4"],
    ["quantizer.weight.bits=4", "quantizer.weight.bits=3"],
    ["calib=wiki_sample", "calib=code_sample"],
    ["scale=quick", "scale=smoke"],
    ["seed=0", "seed=1"],
    ["eval=auto", "eval=samples"],
]


@pytest.fixture
def composer() -> Iterator[Composer]:
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        yield make_composer()


def make_composer(*always: str) -> Composer:
    loader = GlobalHydra.instance().config_loader()
    return Composer(loader, lambda o: loader.load_configuration("config", [*always, *o], run_mode=RunMode.RUN))


def test_every_cell_is_the_one_hydra_composes(composer: Composer) -> None:
    grid = [list(cell) for cell in itertools.product(*AXES)]
    found = [composer.compose(cell) for cell in grid]
    assert composer.by_hydra < 24 < len(grid) == 64
    for cell, (plain, choices) in list(zip(grid, found, strict=True))[::13]:
        loader = GlobalHydra.instance().config_loader()
        whole = loader.load_configuration("config", cell, run_mode=RunMode.RUN)
        assert plain == resolved(whole)
        assert choices == {name: whole.hydra.runtime.choices[name] for name in choices}


def test_cells_share_what_is_equal(composer: Composer) -> None:
    make = CellMaker()
    cells = [make(plain, [], choices) for plain, choices in map(composer.compose, (["seed=0"], ["seed=1"], ["seed=0"]))]
    assert cells[0].recipe is cells[1].recipe
    assert cells[0].calib is cells[2].calib
    assert cells[0].calib is not cells[1].calib
    assert cells[0].run_id == cells[2].run_id != cells[1].run_id
    # The tests of a calibration set have nothing to do with its seed.
    assert all(task is cells[1].tasks[name] for name, task in cells[0].tasks.items())


def test_what_a_node_reads_is_known_whatever_it_was_first_seen_with(tmp_path: Path) -> None:
    (tmp_path / "calib").mkdir()
    (tmp_path / "calib" / "own.yaml").write_text("natural: {x: {note: '${seed}'}}\n")
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        composer = make_composer(f"hydra.searchpath=[file://{tmp_path}]")
        composer.compose(["calib=own", "eval=samples"])
        composer.compose(["calib=wiki_sample", "eval=auto"])
        for seed in (1, 2, 1):
            plain, _ = composer.compose(["calib=own", "eval=auto", f"seed={seed}"])
            assert plain["eval"]["tasks"]["x"]["note"] == seed
    assert composer.by_hydra == 2


@pytest.mark.parametrize("seen", [True, False])
def test_what_is_wrong_is_refused_whether_other_nodes_were_seen_or_not(composer: Composer, seen: bool) -> None:
    if seen:
        composer.compose(["quantizer=gptq"])
    with pytest.raises(HydraException):
        composer.compose(["quantizer=gtpq"])
    with pytest.raises(ConfigError, match="Did you mean 'bits'"):
        composer.compose(["quantizer=gptq", "+quantizer.weight.bit=3"])


def test_an_option_that_changes_several_nodes_counts_for_all(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "long.yaml").write_text("# @package _global_\ncalib: {n: 7}\nscale: {window: 99}\n")
    (tmp_path / "experiment" / "short.yaml").write_text("# @package _global_\ncalib: {n: 3}\n")
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        composer = make_composer(f"hydra.searchpath=[file://{tmp_path}]")
        grid = itertools.product(["+experiment=long", "+experiment=short"], ["quantizer=rtn", "quantizer=gptq"])
        found = {cell: composer.compose(cell)[0] for cell in grid}
    assert {(cell[0][12:], plain["calib"]["n"]) for cell, plain in found.items()} == {("long", 7), ("short", 3)}
    assert {(cell[0][12:], plain["scale"]["window"]) for cell, plain in found.items()} == {("long", 99), ("short", 512)}
    assert composer.factored


def test_options_chosen_by_other_options_are_left_to_hydra(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "follow.yaml").write_text("defaults:\n  - /calib: ${quantizer}_text\n")
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        composer = make_composer(f"hydra.searchpath=[file://{tmp_path}]")
        for cell in (["seed=1"], ["seed=2"], ["seed=1"]):
            assert composer.compose(cell)[0]["seed"] == int(cell[0][-1])
    assert not composer.factored
    assert composer.by_hydra == 3


def test_mixtures_are_put_together_from_their_parts(composer: Composer) -> None:
    mix = ["calib=mix", "+calib.parts.wiki_sample=0.5", "+calib.parts.code_sample=0.5"]
    grid = [[*mix, f"seed={seed}", f"scale={scale}"] for seed in (0, 1, 2) for scale in ("quick", "smoke")]
    loader = GlobalHydra.instance().config_loader()
    for cell in grid:
        whole = loader.load_configuration("config", cell, run_mode=RunMode.RUN)
        assert composer.compose(cell)[0] == resolved(whole)
    assert composer.by_hydra < len(grid)
