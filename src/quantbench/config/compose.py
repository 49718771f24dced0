"""Composed Hydra configuration -> checked cells; and composing outside `@hydra.main` for the sub-commands."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import MissingConfigException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from quantbench.core.build import build, unknown_choice, unknown_key
from quantbench.config.mixing import ADD_A_SET, CALIB_NODES, register_resolvers
from quantbench.core.errors import ConfigError

if TYPE_CHECKING:
    from quantbench.config.schema import Cell
    from quantbench.tasks.task import Task

NODES = ("model", "calib", "quantizer", "eval", "scale")
"""Groups of the root that tell cells apart. Besides them stand `cluster` and the fields of Settings."""

SUITE_KEYS = ("tasks", "shots", "about")
"""What an option of `eval` may hold that is not a component."""


def config_dir() -> Path:
    """Where the options lie: inside an installed package, or at the top of a checkout."""
    packaged = Path(__file__).parents[1] / "conf"
    return packaged if packaged.is_dir() else Path(__file__).parents[3] / "conf"


def check_additions(overrides: Sequence[str], config: DictConfig, groups: Sequence[str]) -> None:
    """Refuse `+key=value` where the key's parent has a fixed set of options. Needs no component to be imported.

    Hydra itself accepts any key behind a plus, and suggests the plus for a misspelt key.
    """
    parser = OverridesParser.create()
    for override in parser.parse_overrides(list(overrides)):
        name = override.get_key_element().lstrip("+~")
        key = name.partition("@")[0]
        if not override.is_add() or key in groups:
            continue
        parent_key, _, leaf = key.rpartition(".")
        parent = OmegaConf.select(config, parent_key) if parent_key else config
        if not isinstance(parent, DictConfig) or ("_target_" not in parent and parent_key):
            continue
        valid = [str(k) for k in parent if str(k) not in {leaf, "_target_", "hydra"}]
        if leaf in OmegaConf.to_container(parent, resolve=False):  # type: ignore[operator]
            top = [g for g in groups if not re.search("[/@]", g)] if not parent_key else []
            raise ConfigError(unknown_key(key, sorted({*valid, *top})))


def explain_composition(error: BaseException) -> str:
    """What Hydra could not compose, with what would be right; not its advice to add a misspelt key with a plus."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ConfigKeyError | ConfigAttributeError) and isinstance(cause.parent_node, DictConfig):
            valid = [str(k) for k in cause.parent_node if str(k) not in {"_target_", "hydra"}]
            key = str(cause.full_key)
            return unknown_key(key, valid) + (f". Another set: {ADD_A_SET}" if key.startswith("calib.parts.") else "")
        if isinstance(cause, MissingConfigException) and cause.missing_cfg_file is not None and cause.options:
            group, _, name = str(cause.missing_cfg_file).rpartition("/")
            return unknown_choice(group, name, cause.options)
        cause = cause.__cause__
    return str(error).partition("Config search path")[0].strip()


def cell_from(config: DictConfig, overrides: Sequence[str], choices: dict[str, Any]) -> Cell:
    """The checked cell of a composed configuration; ConfigError names the first key that is wrong."""
    return cell_of(resolved(config), overrides, choices)


def cell_of(config: dict[str, Any], overrides: Sequence[str], choices: dict[str, Any]) -> Cell:
    """The checked cell of a resolved configuration."""
    return CellMaker()(config, overrides, choices)


class CellMaker:
    """Makes checked cells of resolved configurations; a node that several share (the same object) is built once.

    Components are imported and built here, which checks every option's name, type and range, but nothing is loaded.
    """

    def __init__(self) -> None:
        self._built: dict[tuple[str, int], tuple[Any, Any]] = {}

    def __call__(self, config: dict[str, Any], overrides: Sequence[str], choices: dict[str, Any]) -> Cell:
        """A cell. Raises ConfigError naming the first key that is wrong."""
        from quantbench.calibration.base import AnyCalibration
        from quantbench.config.schema import Cell, Scale, Settings
        from quantbench.core.launcher import Launcher
        from quantbench.models.loading import ModelSource
        from quantbench.pipeline.recipe import Recipe

        root = {k: v for k, v in config.items() if k not in (*NODES, "cluster")}
        recipe = self._once("quantizer", config, lambda node: build(node, Recipe, "quantizer"))
        calib = self._once("calib", config, lambda node: build(_without_natural(node), AnyCalibration, "calib"))
        return Cell(
            settings=build({"_target_": "quantbench.config.schema.Settings", **root}, Settings, ""),
            scale=self._once("scale", config, lambda node: build(node, Scale, "scale")),
            model=self._once("model", config, lambda node: build(node, ModelSource, "model")),
            recipe=recipe,
            calib=None if recipe.data_free else calib,
            tasks=dict(self._once("eval", config, _tasks)),
            choices={group: str(choices[group]) for group in NODES},
            overrides=tuple(overrides),
            cluster=self._once("cluster", config, lambda node: build(node, Launcher, "cluster")),
            config=config,
        )

    def _once(self, name: str, config: dict[str, Any], make: Callable[[Any], Any]) -> Any:
        node = config[name]
        key = (name, id(node))
        if key not in self._built:
            self._built[key] = (node, make(node))  # the node is kept: its id stays its own
        return self._built[key][1]


def _without_natural(node: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in node.items() if k not in CALIB_NODES}


def _tasks(node: dict[str, Any]) -> dict[str, Task]:
    """The named tasks of a suite: a mapping `tasks`. `shots` is what lm-eval tasks read."""
    from quantbench.tasks.task import Task

    extra = sorted(set(node) - set(SUITE_KEYS))
    if extra:
        raise ConfigError(unknown_key(f"eval.{extra[0]}", list(SUITE_KEYS)))
    tasks = node.get("tasks")
    if not isinstance(tasks, dict) or not tasks:
        raise ConfigError(f"eval.tasks: expected a mapping of named tasks, found {tasks!r}")
    return {name: build(one, Task, f"eval.tasks.{name}") for name, one in tasks.items()}


def resolved(config: DictConfig) -> dict[str, Any]:
    """The job's own part of a composed configuration as plain values, interpolations resolved.

    Raises ConfigError for a required value that is missing and for an interpolation that leads nowhere.
    """
    own = config.copy()
    with open_dict(own):
        own.pop("hydra", None)
    return {str(name): resolved_node(own, str(name)) for name in own}


def resolved_node(config: DictConfig, name: str) -> Any:
    """One node of a configuration as plain values, interpolations resolved; see `resolved`."""
    register_resolvers()
    try:
        required = [name] if OmegaConf.is_missing(config, name) else []
        node = None if required else config[name]
        if isinstance(node, DictConfig):
            required = sorted(OmegaConf.missing_keys(node))
        if required:
            raise ConfigError(f"{required[0]}: this option is required; give {required[0]}=...")
        return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
    except OmegaConfBaseException as error:
        raise _said_by_resolver(error) or ConfigError(f"{error.full_key or 'config'}: {error.msg or error}") from error


def _said_by_resolver(error: BaseException) -> ConfigError | None:
    """What a resolver of ours found wrong; OmegaConf wraps it in errors of its own."""
    inner: BaseException | None = error
    while inner is not None and not isinstance(inner, ConfigError):
        inner = inner.__cause__ or inner.__context__
    return inner


def group_names(config_loader: Any) -> list[str]:
    """Names of all config groups on the search path."""
    return [str(name) for name in config_loader.list_groups("")]


def expand(overrides: Sequence[str], params: dict[str, str] | None = None) -> list[list[str]]:
    """All combinations of a sweep's overrides: choice lists and ranges become one override each."""
    lines = [f"{key}={value}" for key, value in (params or {}).items()]
    axes = [_values(o) for o in OverridesParser.create().parse_overrides([*lines, *overrides])]
    return [list(combination) for combination in product(*axes)]


def _values(override: Override) -> list[str]:
    if not override.is_sweep_override():
        return [override.input_line or ""]
    key = override.get_key_element()
    return [f"{key}={value}" for value in override.sweep_string_iterator()]
