"""Files of one's own in one grid: `calib=local calib.path=a.txt,b.txt` makes a table of a and b, tested on both.

A data set is a column of the tables, and its name stands for one text. The option `local` is called so whatever the
file is; in a grid of several files each is called what its file is called, and every cell is tested on all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from quantbench.config.evaluations import Evaluations
from quantbench.core.errors import ConfigError
from quantbench.core.paths import short_names

Nodes = dict[str, Any]


def name_by_file(cells: Sequence[tuple[Nodes, str]], known: Mapping[str, object]) -> dict[str, str]:
    """Path -> name, where calibration sets of one option without a name of its own read several files; else nothing.

    cells  resolved nodes and the option of `calib`; known: names of data sets that there are
    Raises ConfigError if a file's name is that of another set.
    """
    paths: dict[str, set[str]] = {}
    for nodes, option in cells:
        calib = nodes["calib"]
        if calib.get("path") is not None and calib.get("name") is None:
            paths.setdefault(option, set()).add(str(calib["path"]))
    several = sorted({path for found in paths.values() if len(found) > 1 for path in found})
    names = short_names(several)
    if taken := sorted(set(names.values()) & set(known)):
        raise ConfigError(f"calib.path: a data set is called {taken[0]!r} already; rename the file, or give calib.name")
    return names


def named_nodes(nodes: Nodes, names: Mapping[str, str]) -> Nodes:
    """A cell's nodes with the calibration set named by its file, and the default tests those of all files."""
    name = names.get(str(nodes["calib"].get("path")))
    if name is None:
        return nodes
    calib = {**nodes["calib"], "name": name}
    if not Evaluations.is_auto(nodes["eval"]):
        return {**nodes, "calib": calib}
    return {**nodes, "calib": calib, "eval": {**nodes["eval"], "files": dict(names)}}
