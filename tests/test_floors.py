"""The house: which file may import which, drawn from the source, imports for type checkers included."""

from __future__ import annotations

import ast
import graphlib
import statistics
from functools import cache
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src"

FLOORS = [
    {"core"},
    {"metrics", "kernels", "roofline"},
    {"formats", "models", "datasets", "store"},
    {"transforms"},
    {"rounding"},
    {"calibration", "pipeline"},
    {"tasks", "report", "checkpoints"},
    {"config"},
    {"cells"},
    {"launch", "export"},
    {"efficiency"},
    {"cli", "api"},
    {"__main__"},
]
"""Ground floor first. A file imports from its own folder and from the floors below, not from its neighbours."""

SWITCHBOARDS = ("pipeline/walker.py", "launch/grid.py", "cells/run.py")
"""Files that put many parts together: each knows a dozen modules at most."""


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(SRC).with_suffix("").parts).removesuffix(".__init__")


@cache
def sources() -> dict[str, Path]:
    """Every module of the package by its name."""
    return {name_of(path): path for path in sorted((SRC / "quantbench").rglob("*.py"))}


def imported(path: Path) -> set[str]:
    """Full names of what a file imports anywhere in it, and of modules that it loads by their name."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Import(names=names):
                found |= {alias.name for alias in names}
            case ast.ImportFrom(module=str(module), names=names, level=0):
                found |= {f"{module}.{alias.name}" for alias in names}
            case ast.ImportFrom():
                pytest.fail(f"{path}: a relative import")
            case ast.Call(
                func=ast.Name(id="lazy_module" | "import_module") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name))],
            ):
                found.add(name)
    return found


@cache
def arrows() -> dict[str, set[str]]:
    """Module -> those of our modules that it imports."""
    ours = sources()
    graph: dict[str, set[str]] = {}
    for name, path in ours.items():
        wanted = {one if one in ours else one.rpartition(".")[0] for one in imported(path)}
        graph[name] = (wanted & ours.keys()) - {name}
    return graph


def folder(module: str) -> str:
    """The folder of a module; the package itself, which shows the public interface, is the roof."""
    return module.split(".")[1] if "." in module else "__main__"


def floor(module: str) -> int:
    found = [number for number, folders in enumerate(FLOORS) if folder(module) in folders]
    assert found, f"{module} is on no floor"
    return found[0]


def test_no_files_import_each_other_in_a_circle() -> None:
    try:
        graphlib.TopologicalSorter(arrows()).prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"a circle: {' <- '.join(error.args[1])}")


def test_imports_go_down_only() -> None:
    upward = [
        f"{name} -> {other}"
        for name, others in arrows().items()
        for other in sorted(others)
        if folder(name) != folder(other) and floor(name) <= floor(other)
    ]
    assert not upward, "\n".join(upward)


def test_hydra_and_omegaconf_are_imported_in_config_only() -> None:
    users = [
        name
        for name, path in sources().items()
        if any(one.partition(".")[0] in {"hydra", "omegaconf"} for one in imported(path))
    ]
    assert not [name for name in users if folder(name) != "config"]


@pytest.mark.parametrize("file", SWITCHBOARDS)
def test_a_switchboard_knows_a_dozen_modules(file: str) -> None:
    known = arrows()[name_of(SRC / "quantbench" / file)]
    assert len(known) <= 12, "\n".join(sorted(known))


def test_files_are_small() -> None:
    lines = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in sources().items()}
    assert not {name: count for name, count in lines.items() if count > 300}
    assert statistics.median(lines.values()) <= 100


def test_nothing_in_the_package_looks_like_a_test() -> None:
    assert not [path for path in SRC.rglob("*.py") if path.name.startswith("test_") or path.stem.endswith("_test")]


def test_every_kind_of_import_is_seen(tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    file.write_text(
        "import one.two\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from three import four as five\n"
        "def f():\n    from six import seven\n    importlib.import_module('eight')\nnine = lazy_module('nine')\n"
    )
    assert imported(file) == {"one.two", "typing.TYPE_CHECKING", "three.four", "six.seven", "eight", "nine"}
