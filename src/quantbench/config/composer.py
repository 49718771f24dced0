"""The one road from a command line to checked cells: single cells, grids, `prepare` and the Python interface use it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from omegaconf import DictConfig

from quantbench.calibration.base import AnyCalibration
from quantbench.config.calibrations import Calibrations
from quantbench.config.catalogue import Catalogue
from quantbench.config.cell import Cell, checked
from quantbench.config.checkpoint_keys import each_its_own
from quantbench.config.evaluations import Evaluations
from quantbench.config.explain import check_additions, check_chosen, hydra_explained
from quantbench.config.factored import Factored, Node
from quantbench.config.folders import Folders, config_dir, search
from quantbench.config.groups import CELL, ROOT
from quantbench.config.node import ConfigNode
from quantbench.config.overrides import as_typed, distinct, expand, to_hydra
from quantbench.config.own_files import name_by_file, named_nodes
from quantbench.config.resolving import resolved, resolver
from quantbench.config.settings import Scale, Settings
from quantbench.core.errors import ConfigError
from quantbench.core.launcher import Launcher
from quantbench.models.loading import ModelSource
from quantbench.pipeline.any_recipe import AnyRecipe
from quantbench.tasks.task import Task

SHARED = ("sweep=", "cluster", "detach=", "retry_failed=", "report=")
"""Beginnings of overrides that say how a sweep is run, the same for all its cells."""

Composed = tuple[dict[str, Node], dict[str, str], tuple[str, ...]]
"""Root nodes, the choices, and the overrides that tell a cell apart."""


class Composer:
    """Makes cells of overrides. What several cells share is one object: its component is built once.

    loader  Hydra's; load: composes one cell with it
    """

    def __init__(self, folders: Folders, loader: Any, load: Callable[[list[str]], DictConfig]) -> None:
        self._catalogue = Catalogue(folders)
        self._folders = folders
        self._factored = Factored(loader, load)
        self._parts: dict[tuple[Any, ...], Any] = {}

    @property
    def by_hydra(self) -> int:
        """How many cells Hydra was asked for."""
        return self._factored.by_hydra

    def cells(self, overrides: Sequence[Sequence[str]]) -> list[Cell]:
        """The checked cells of lists of overrides, in the form that Hydra takes; equal lists make one cell.

        Raises ConfigError naming the first key that is wrong.
        """
        with hydra_explained(self._folders):
            composed: list[Composed] = []
            for own in distinct(each_its_own(overrides)):
                nodes, choices = self._factored.compose(own)
                composed.append((nodes, choices, tuple(as_typed([o for o in own if _tells_cells_apart(o)]))))
        return self._checked(composed)

    def cell(self, config: DictConfig, overrides: Sequence[str], choices: Mapping[str, Any]) -> Cell:
        """The checked cell of a configuration that Hydra has composed."""
        check_chosen(choices)
        check_additions(overrides, config, list(choices))
        nodes = {name: Node(plain) for name, plain in resolved(config).items()}
        chosen = {group: str(choices[group]) for group in CELL}
        return self._checked([(nodes, chosen, tuple(as_typed(overrides)))])[0]

    def _checked(self, composed: Sequence[Composed]) -> list[Cell]:
        plain = [
            ({name: node.plain for name, node in nodes.items()}, choices["calib"]) for nodes, choices, _ in composed
        ]
        names = name_by_file(plain, self._catalogue.files("calib"))
        cells = []
        for nodes, choices, own in composed:
            try:
                cells.append(self._cell(nodes, choices, own, names))
            except ConfigError as error:
                raise self._of_which_set(error, choices["calib"], composed, names) from error
        return cells

    def _of_which_set(
        self, error: ConfigError, refused: str, composed: Sequence[Composed], names: Mapping[str, str]
    ) -> ConfigError:
        """An error of a key of `calib` in a grid of several sets, with the sets that the key belongs to, if any."""
        first: dict[str, Composed] = {}
        for cell in composed:
            first.setdefault(cell[1]["calib"], cell)
        if len(first) < 2 or not re.match(r"calib[.:]", str(error)):
            return error
        taken: list[str] = []
        known: dict[str, str] = {}  # the options are its own, their values are refused
        for option, cell in first.items():
            try:
                self._cell(*cell, names)
                taken.append(option)
            except ConfigError as other:
                if "no such option" not in str(other):
                    known[option] = str(other)
        belongs = f"{', '.join(taken)} would take the calib options given here" if taken else "no set here takes them"
        if not taken and len(known) < len(first):
            reasons = {option: f" ({why})" * (option != refused) for option, why in known.items()}
            belongs = (
                "; ".join(f"{one} has them, and refuses their values{why}" for one, why in reasons.items()) or belongs
            )
        return ConfigError(
            f"calib={refused}: {error}\n  Options of calib count for every set of the grid ({', '.join(first)}); "
            f"{belongs}. Run the sets in commands of their own, or give such a set an option file (docs/own_data.md)"
        )

    def _cell(
        self, nodes: dict[str, Node], choices: dict[str, str], own: tuple[str, ...], names: Mapping[str, str]
    ) -> Cell:
        def part(name: str, expected: Any) -> Any:
            return self._once(("part", nodes[name]), lambda: ConfigNode(nodes[name].plain, expected, name))

        plain = {name: node.plain for name, node in nodes.items()}
        settings = {key: value for key, value in plain.items() if key not in ROOT}
        whole = {"_target_": f"{Settings.__module__}.{Settings.__qualname__}", **settings}
        option, read = choices["calib"], (nodes["calib"], nodes["scale"], nodes.get("seed"))
        calib = self._once(("calib", option, *read), lambda: self._calib(plain, option, names))
        own_eval = (nodes["eval"], *(read if Evaluations.is_auto(plain["eval"]) or _named(plain, option) else read[1:]))
        return checked(
            self._once(
                ("settings", *(nodes[key] for key in settings)), lambda: ConfigNode(whole, Settings, "")
            ).component,
            part("scale", Scale),
            part("model", ModelSource),
            part("quantizer", AnyRecipe),
            calib,
            self._once(("tasks", option, *own_eval), lambda: self._tasks(plain, option, names)),
            part("cluster", Launcher),
            choices=choices,
            overrides=own,
        )

    def _calib(self, plain: Mapping[str, Any], option: str, names: Mapping[str, str]) -> ConfigNode[AnyCalibration]:
        node = named_nodes(dict(plain), names)["calib"]
        made = Calibrations(self._catalogue, resolver(plain, "calib"))
        return ConfigNode(made.full(option, node), AnyCalibration, "calib")

    def _tasks(self, plain: Mapping[str, Any], option: str, names: Mapping[str, str]) -> dict[str, ConfigNode[Task]]:
        nodes = named_nodes(dict(plain), names)
        made = Evaluations(self._catalogue, resolver(plain, "eval"))
        tasks = made.full(nodes["eval"], option, nodes["calib"])
        return {name: ConfigNode(task, Task, f"eval.tasks.{name}") for name, task in tasks.items()}

    def _once(self, key: tuple[Any, ...], make: Callable[[], Any]) -> Any:
        if key not in self._parts:
            self._parts[key] = make()
        return self._parts[key]


def _tells_cells_apart(override: str) -> bool:
    return not override.lstrip("+").startswith(SHARED)


def _named(plain: Mapping[str, Any], option: str) -> bool:
    """Whether an evaluation names the set that is calibrated on, which is then tested as it is given there."""
    node = plain["eval"]
    return bool(node.get("suites")) or option in (node.get("sets") or ())


@contextmanager
def offline_composer(folders: Folders | None = None) -> Iterator[tuple[Composer, Any]]:
    """A composer outside of Hydra's own application, and Hydra's loader."""
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.types import RunMode

    chosen = folders or Folders()
    search(chosen)
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()

        def load(overrides: list[str]) -> DictConfig:
            return loader.load_configuration("config", overrides, run_mode=RunMode.RUN)

        yield Composer(chosen, loader, load), loader


def compose_cells(arguments: Sequence[str], folders: Folders | None = None) -> list[Cell]:
    """All cells of a command line as typed, a sweep's included. Raises ConfigError for what cannot be composed."""
    with offline_composer(folders) as (composer, loader):
        return cells_of(composer, loader, arguments, folders or Folders())


def cells_of(composer: Composer, loader: Any, arguments: Sequence[str], folders: Folders) -> list[Cell]:
    """See `compose_cells`; what one composer has composed before takes no time again."""
    from hydra.types import RunMode

    given = [one for one in arguments if one not in {"-m", "--multirun"}]
    swept = len(given) < len(arguments) or any(one.lstrip("+").startswith("sweep=") for one in given)
    typed = to_hydra([*(["-m"] if swept else []), *given])
    overrides = [one for one in typed if one != "-m"]
    with hydra_explained(folders):
        named = [o for o in overrides if o.lstrip("+").startswith("sweep=")]
        params: dict[str, str] = {}
        if named:
            first = loader.load_configuration("config", named, run_mode=RunMode.MULTIRUN)
            params = {str(k): str(v) for k, v in (first.hydra.sweeper.get("params") or {}).items()}
        rest = [o for o in overrides if o not in named]
        return composer.cells([[*named, *one] for one in expand(rest, params)])
