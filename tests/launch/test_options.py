"""Every option of conf/: it composes, builds, lists all its options, and says what it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest
import yaml

from quantbench.config.catalogue import PARTS, Catalogue
from quantbench.config.cell import Cell
from quantbench.config.composer import Composer, offline_composer
from quantbench.config.folders import Folders, config_dir
from quantbench.config.groups import GROUPS, ROOT
from quantbench.config.overrides import expand, to_hydra
from quantbench.core.build import DESCRIPTION, import_target, option_names
from quantbench.core.errors import ConfigError

CONF = config_dir()
CATALOGUE = Catalogue(Folders())
SWEEPS = sorted((CONF / "sweep").glob("*.yaml"))

RECIPE_PARTS = {
    "recipe": "quantizer",
    "format": "quantizer.weight",
    "activation": "quantizer.activation",
    "kv_cache": "quantizer.kv_cache",
    "rotation": "quantizer.rotation",
    "transform": "quantizer.transforms.added",
    "clip": "quantizer.clip",
    "rounding": "quantizer.rounding",
    "policy": "quantizer.policy",
    "allocation": "quantizer.policy.allocation",
}
"""Where a part of a recipe stands."""

FULL = ("model", "quantizer", "scale", "cluster")
"""Groups whose options list every parameter. One that is left out could be set with a plus only, and its misspelling
would not be seen; data sets and evaluations are checked by what their family and their test know."""

NEEDED = {
    "calib=mix": ["calib.parts.wiki=0.25", "calib.parts.c4=0.75"],
    "eval=local": ["eval.tasks.local.path=some.txt"],
    "eval=lm_eval": ["eval.names=[piqa]"],
}
"""What an option needs besides, where that is no key of its own that it leaves open (`???`)."""

WHOLE = 12
"""Of a sweep with more cells only some are composed, among which is every value of every axis."""


@pytest.fixture(scope="module")
def composer() -> Iterator[Composer]:
    with offline_composer() as (composer, _):
        yield composer


def composed(composer: Composer, overrides: Sequence[str]) -> Cell:
    """The cell of overrides; a failure says which."""
    try:
        (cell,) = composer.cells([to_hydra(overrides)])
    except ConfigError as error:
        raise AssertionError(f"{' '.join(overrides)}: {error}") from error
    return cell


def chosen(group: str, option: str) -> list[str]:
    """Overrides that choose an option of the root, and give what it requires."""
    content = yaml.safe_load((CONF / group / f"{option}.yaml").read_text()) or {}
    open_keys = [f"{group}.{key}=some_file" for key, value in content.items() if value == "???" and group != "eval"]
    return [f"{group}={option}", *open_keys, *NEEDED.get(f"{group}={option}", ())]


def options(group: str) -> list[str]:
    return sorted(file.stem for file in (CONF / group).glob("*.yaml"))


def check_parameters(cell: Cell, place: str) -> None:
    """Every component at or below a place lists all parameters."""
    for key, node in components(cell.plain):
        if key == place or key.startswith(f"{place}."):
            given = set(node) - {"_target_", DESCRIPTION}
            assert given == set(option_names(import_target(node["_target_"], key), key)) - {DESCRIPTION}, key


def components(value: Any, key: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every mapping with a `_target_` in a plain configuration, and where it stands."""
    if isinstance(value, dict):
        if "_target_" in value:
            yield key, value
        for name, inner in value.items():
            yield from components(inner, f"{key}.{name}" if key else str(name))


@pytest.mark.parametrize(
    "groups", [[one for one in ROOT if one != "calib"], pytest.param(["calib"], marks=pytest.mark.slow)]
)
def test_every_option_of_the_root_is_in_a_cell(composer: Composer, groups: list[str]) -> None:
    """Each cell tries one option of every group that has any left: what one decides does not hang on the others."""
    for names in zip_longest(*map(options, groups)):
        tried = [(group, name) for group, name in zip(groups, names, strict=True) if name]
        overrides = [override for group, name in tried for override in chosen(group, name)]
        cell = composed(composer, [*overrides, *(() if "eval" in dict(tried) else ["eval=two_samples"])])
        assert cell.tasks, overrides
        for group, _ in tried:
            if group in FULL:
                check_parameters(cell, group)


def test_every_data_set_is_a_test(composer: Composer) -> None:
    """All of them beside each other; those made of others are none."""
    made = {name for name in options("calib") if "_target_" in CATALOGUE.option("calib", name)}
    named = {name for name in options("calib") if "???" in CATALOGUE.option("calib", name).values()}
    names = sorted(set(options("calib")) - made - named)
    cell = composed(composer, ["quantizer=rtn", f"eval.sets=[{','.join(names)}]"])
    assert len(names) > 50
    assert set(names) <= {origin for task in cell.tasks for origin in (task, task.rpartition("_")[0])}


@pytest.mark.parametrize("group", RECIPE_PARTS)
def test_a_part_of_a_recipe_composes_builds_and_lists_every_parameter(composer: Composer, group: str) -> None:
    place = RECIPE_PARTS[group]
    for option in options(group):
        choice = f"{group}@{place}={option}"
        if group == "transform":  # some are for quantized activations
            overrides = ["quantizer=w4a8", f"+{choice}"]
        elif group in {"clip", "activation", "kv_cache", "rotation", "allocation"}:  # GPTQ has none of these
            overrides = [f"+{choice}"]
        elif group == "rounding":  # in the recipe of its name, since not every format and order suits it
            overrides = [f"quantizer={option if option in options('quantizer') else 'rtn'}", choice]
        else:
            overrides = [choice]
        check_parameters(composed(composer, [*overrides, "eval=two_samples"]), place)


def test_every_part_of_a_data_set_composes_and_builds(composer: Composer) -> None:
    for sampler in CATALOGUE.parts("sampler"):
        assert composed(composer, ["quantizer=gptq", f"calib.sampler={sampler}", "eval=two_samples"]).calib
    for render in CATALOGUE.parts("render"):
        assert composed(
            composer, ["quantizer=gptq", "calib=alpaca", f"calib.render={render}", "eval=two_samples"]
        ).calib


def test_groups_not_tried_here_are_noticed() -> None:
    tried = {*ROOT, *RECIPE_PARTS, *PARTS, "sweep", "family", "lm_eval", "hardware"}
    assert {group.name for group in GROUPS} == tried
    assert {file.name for file in CONF.iterdir() if file.is_dir()} == tried - {*PARTS} | {"parts"}


def test_every_option_says_what_it_is() -> None:
    for group in GROUPS:
        for file in sorted((CONF / group.name).glob("*.yaml")):
            comments = [one for one in file.read_text().splitlines() if one.startswith("#") and "@package" not in one]
            assert comments, file
            assert len(comments[0].lstrip("# ")) > 10, file
            if group.root:
                assert f"{group.name}={file.stem}" in comments[0], file
            if group.name == "sweep":
                assert f"+sweep={file.stem}" in comments[0], file


@pytest.mark.slow
@pytest.mark.parametrize("file", SWEEPS, ids=lambda file: file.stem)
def test_every_cell_of_a_sweep_composes_and_no_two_are_the_same(composer: Composer, file: Path) -> None:
    content = yaml.safe_load(file.read_text())
    assert set(content) == {"hydra"}  # so that its cells are those of the overrides it lists
    assert content["hydra"]["mode"] == "MULTIRUN"
    params = {str(key): str(value) for key, value in content["hydra"]["sweeper"]["params"].items()}
    combinations = expand([], params)
    assert len({tuple(one) for one in combinations}) == len(combinations)
    if len(combinations) > WHOLE:
        axes = [[value for (value,) in expand([], {key: values})] for key, values in params.items()]
        combinations = [[axis[i % len(axis)] for axis in axes] for i in range(max(map(len, axes)))]
    cells = [composed(composer, one) for one in combinations]
    assert len(cells) > 1
    assert len({cell.overrides for cell in cells}) == len(cells)
    assert all(cell.tasks for cell in cells)
