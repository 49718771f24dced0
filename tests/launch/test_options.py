"""Every option of conf/ and sweeps/: it composes, builds, lists all its options, and says what it is."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from quantbench.config.compose import cell_from, config_dir, expand
from quantbench.config.mixing import CALIB_NODES, register_resolvers
from quantbench.config.schema import Cell

from quantbench.core.build import DESCRIPTION, import_target, option_names

CONF = config_dir()
LM_EVAL_TASKS = sorted(CONF.glob("task/lm_eval/*.yaml"))
FILES = sorted([*CONF.glob("*/*.yaml"), *LM_EVAL_TASKS])
ROOT_GROUPS = ("model", "calib", "quantizer", "eval", "scale", "cluster")
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
PLACEHOLDERS: dict[str, Any] = {"model": "some_folder", "calib": "some.txt", "eval": "some.txt", "eval.names": ["some"]}
PROMPT_PARTS = {
    "rows": "calib.source.data",
    "template": "calib.source.template",
    "scoring": "eval.tasks.vader_film",
}
"""Parts of what is made from rows: where they can be chosen in `calib=sst2 eval=vader`."""

"""Values of the options that have no default (`???`), by the part of the configuration they stand in."""

WHOLE = 40
"""Of a sweep with more cells only some are composed, among which is every value of every axis."""


@pytest.fixture(scope="module")
def loader() -> Iterator[ConfigLoader]:
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield GlobalHydra.instance().config_loader()


def compose(loader: ConfigLoader, overrides: Sequence[str], mode: RunMode = RunMode.RUN) -> DictConfig:
    config = loader.load_configuration("config", list(overrides), run_mode=mode)
    for key in sorted(OmegaConf.missing_keys(config)):
        if not key.startswith("hydra."):
            OmegaConf.update(config, key, PLACEHOLDERS.get(key, PLACEHOLDERS[key.partition(".")[0]]))
    return config


def cell_of(loader: ConfigLoader, overrides: Sequence[str]) -> Cell:
    config = compose(loader, overrides)
    choices: Any = OmegaConf.to_container(config.hydra.runtime.choices)
    return cell_from(config, overrides, choices)


def nodes(value: Any, key: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every mapping with a `_target_` in a plain configuration, and where it stands."""
    if isinstance(value, dict):
        if "_target_" in value:
            yield key, value
        for name, inner in value.items():
            yield from nodes(inner, f"{key}.{name}" if key else str(name))


def name(file: Path) -> str:
    return f"{file.parent.name}={file.stem}"


def place_of(file: Path) -> tuple[str, list[str]]:
    """Where an option stands in the configuration, and overrides that choose it there."""
    group, option = file.parent.name, file.stem
    if group == "task":
        return "eval.tasks.added", [f"+task@eval.tasks.added={option}"]
    places = {"sampler": "calib.sampler", "text": "calib.source", "draw": "calib"} | PROMPT_PARTS | RECIPE_PARTS
    place = places.get(group, group)
    if (group, option) == ("calib", "mix"):  # which has no part by itself
        return place, ["calib=mix", "calib.parts.wiki=0.25", "calib.parts.c4=0.75"]
    if (group, option) == ("scoring", "exam"):  # of a task whose data are an exam
        place = "eval.tasks.ceval_hm"
        return place, ["eval=exams_zeroshot", f"scoring@{place}=exam"]
    if group == "render":
        return "calib.source.render", ["calib=alpaca", f"render@calib.source.render={option}"]
    if group in PROMPT_PARTS:  # parts of a task, and of a calibration set, made from rows
        return place, ["calib=sst2", "eval=vader", f"{group}@{place}={option}"]
    if group == "transform":  # some are for quantized activations
        return place, ["quantizer=w4a8", f"+{group}@{place}={option}"]
    if group in {"clip", "activation", "kv_cache", "rotation", "allocation"}:  # GPTQ has none of these
        return place, [f"+{group}@{place}={option}"]
    if group == "rounding":  # in the recipe of its name, since not every format and order suits it
        recipe = option if (CONF / "quantizer" / file.name).exists() else "rtn"
        return place, [f"quantizer={recipe}", f"{group}@{place}={option}"]
    return place, [f"{group}={option}" if place == group else f"{group}@{place}={option}"]


@pytest.mark.parametrize("file", [f for f in FILES if f.parent.name not in {"sweep", "lm_eval"}], ids=name)
def test_an_option_composes_builds_and_lists_every_parameter(loader: ConfigLoader, file: Path) -> None:
    place, overrides = place_of(file)
    check_parameters(cell_of(loader, overrides), place)


def test_tasks_of_lm_eval_compose_side_by_side(loader: ConfigLoader) -> None:
    names = [file.stem for file in LM_EVAL_TASKS]
    cell = cell_of(loader, ["eval=samples", *(f"+task/lm_eval@eval.tasks.{one}_x={one}" for one in names)])
    for one in names:
        check_parameters(cell, f"eval.tasks.{one}_x")
        described = cell.tasks[f"{one}_x"].distribution
        assert one == "any" or "unknown" not in described.values(), one


def check_parameters(cell: Cell, place: str) -> None:
    # A parameter that a yaml leaves out could be set with a plus only, so that Hydra would not see its misspelling.
    for key, node in nodes(cell.config):
        if key == place or key.startswith(f"{place}."):
            beside = CALIB_NODES if re.fullmatch(r"calib(\.sets\.\w+)?", key) else ()
            given = set(node) - {"_target_", DESCRIPTION, *beside}
            assert given == set(option_names(import_target(node["_target_"], key), key)) - {DESCRIPTION}, key


@pytest.mark.parametrize("file", FILES, ids=name)
def test_an_option_says_what_it_is(file: Path) -> None:
    comments = [line for line in file.read_text().splitlines() if line.startswith("#") and "@package" not in line]
    assert comments, f"{file} has no comment"
    assert len(comments[0].lstrip("# ")) > 10
    if file.parent.name in ROOT_GROUPS:
        assert name(file) in comments[0]
    if file.parent.name == "sweep":
        assert f"+sweep={file.stem}" in comments[0]


@pytest.mark.parametrize("file", sorted((CONF / "sweep").glob("*.yaml")), ids=name)
def test_every_cell_of_a_sweep_composes_and_no_two_are_the_same(loader: ConfigLoader, file: Path) -> None:
    content = yaml.safe_load(file.read_text())
    assert content["hydra"]["mode"] == "MULTIRUN"
    config = compose(loader, [f"+sweep={file.stem}"], RunMode.MULTIRUN)
    params = {str(k): str(v) for k, v in config.hydra.sweeper.params.items()}
    combinations = expand([], params)
    assert len({tuple(one) for one in combinations}) == len(combinations)
    if len(combinations) > WHOLE:
        axes = [[value for (value,) in expand([], {key: values})] for key, values in params.items()]
        combinations = [[axis[i % len(axis)] for axis in axes] for i in range(max(map(len, axes)))]
    cells = [cell_of(loader, [f"+sweep={file.stem}", *one]) for one in combinations]
    assert len(cells) > 1
    assert len({cell.overrides for cell in cells}) == len(cells)
    assert all(cell.tasks for cell in cells)


def test_options_not_composed_here_are_noticed() -> None:
    known = {*ROOT_GROUPS, *RECIPE_PARTS, *PROMPT_PARTS, "draw", "sampler", "text", "render", "task", "sweep"}
    assert {str(file.parent.relative_to(CONF)) for file in FILES} == known | {"task/lm_eval"}
