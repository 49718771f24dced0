"""Cells put together from remembered nodes are those that Hydra composes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig

from quantbench.config.composer import offline_composer
from quantbench.config.factored import Factored
from quantbench.config.folders import Folders
from quantbench.config.resolving import resolved
from quantbench.core.errors import ConfigError

AXES = [
    ["quantizer=gptq", "quantizer=w4a4"],
    ["quantizer.weight.bits=4", "quantizer.weight.bits=3"],
    ["calib=wiki_sample", "calib=code_sample"],
    ["scale=quick", "scale=smoke"],
    ["seed=0", "seed=1"],
    ["eval=auto", "eval=samples"],
]


def by_hydra(overrides: Sequence[str]) -> DictConfig:
    loader = GlobalHydra.instance().config_loader()
    return loader.load_configuration("config", list(overrides), run_mode=RunMode.RUN)


@pytest.fixture
def factored() -> Iterator[Factored]:
    with offline_composer() as (_, loader):
        yield Factored(loader, by_hydra)


def plain(factored: Factored, overrides: Sequence[str]) -> dict[str, Any]:
    nodes, _ = factored.compose(overrides)
    return {name: node.plain for name, node in nodes.items()}


@pytest.mark.slow
def test_every_cell_is_the_one_hydra_composes(factored: Factored) -> None:
    grid = [list(cell) for cell in itertools.product(*AXES)]
    found = [factored.compose(cell) for cell in grid]
    assert factored.by_hydra < 24 < len(grid) == 64
    for cell, (nodes, choices) in list(zip(grid, found, strict=True))[::13]:
        whole = by_hydra(cell)
        assert {name: node.plain for name, node in nodes.items()} == resolved(whole)
        assert choices == {name: whole.hydra.runtime.choices[name] for name in choices}


def test_cells_share_what_is_equal() -> None:
    with offline_composer() as (composer, _):
        cells = composer.cells([["seed=0"], ["seed=1"], ["seed=0", "threads=1"]])
    assert cells[0].recipe is cells[1].recipe
    assert cells[0].calib is cells[2].calib
    assert cells[0].calib is not cells[1].calib
    assert cells[0].run_id == cells[2].run_id != cells[1].run_id
    assert all(part is cells[2].task_parts[name] for name, part in cells[0].task_parts.items())
    # The tests of a calibration set have nothing to do with its seed.
    assert all(part.digest == cells[1].task_parts[name].digest for name, part in cells[0].task_parts.items())


def option(folder: Path, name: str, content: str) -> None:
    path = folder / f"{name}.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)


def test_what_a_node_reads_is_known_whatever_it_was_first_seen_with(tmp_path: Path) -> None:
    option(tmp_path, "calib/own", "path: a\nfamily: local\nnote: '${seed}'\n")
    with offline_composer(Folders([tmp_path])) as (_, loader):
        factored = Factored(loader, by_hydra)
        factored.compose(["calib=wiki_sample", "seed=1"])
        factored.compose(["calib=own", "seed=3"])
        for seed in (1, 2, 1):
            assert plain(factored, ["calib=own", f"seed={seed}"])["calib"]["note"] == seed
    assert factored.by_hydra == 2


@pytest.mark.parametrize("seen", [True, False])
def test_what_is_wrong_is_refused_whether_other_nodes_were_seen_or_not(factored: Factored, seen: bool) -> None:
    if seen:
        factored.compose(["quantizer=gptq"])
    with pytest.raises(HydraException):
        factored.compose(["quantizer=gtpq"])
    with pytest.raises(ConfigError, match="Did you mean 'bits'"):
        factored.compose(["quantizer=gptq", "+quantizer.weight.bit=3"])


def test_an_option_that_changes_several_nodes_counts_for_all(tmp_path: Path) -> None:
    option(tmp_path, "experiment/long", "# @package _global_\ncalib: {n: 7}\nscale: {window: 99}\n")
    option(tmp_path, "experiment/short", "# @package _global_\ncalib: {n: 3}\n")
    with offline_composer(Folders([tmp_path])) as (_, loader):
        factored = Factored(loader, by_hydra)
        grid = list(itertools.product(["+experiment=long", "+experiment=short"], ["quantizer=rtn", "quantizer=gptq"]))
        found = {cell: plain(factored, cell) for cell in grid}
    assert {(cell[0][12:], one["calib"]["n"]) for cell, one in found.items()} == {("long", 7), ("short", 3)}
    assert {(cell[0][12:], one["scale"]["window"]) for cell, one in found.items()} == {("long", 99), ("short", 512)}
    assert factored.factored


def test_options_chosen_by_other_options_are_left_to_hydra(tmp_path: Path) -> None:
    option(tmp_path, "experiment/follow", "defaults:\n  - /calib: ${quantizer}_text\n")
    with offline_composer(Folders([tmp_path])) as (_, loader):
        factored = Factored(loader, by_hydra)
        for cell in (["seed=1"], ["seed=2"], ["seed=1"]):
            assert plain(factored, cell)["seed"] == int(cell[0][-1])
    assert not factored.factored
    assert factored.by_hydra == 3


def test_mixtures_are_put_together_from_their_parts(factored: Factored) -> None:
    mix = ["calib=mix", "++calib.parts.wiki_sample=0.5", "++calib.parts.code_sample=0.5"]
    grid = [[*mix, f"seed={seed}", f"scale={scale}"] for seed in (0, 1, 2) for scale in ("quick", "smoke")]
    for cell in grid:
        assert plain(factored, cell) == resolved(by_hydra(cell))
    assert factored.by_hydra < len(grid)
