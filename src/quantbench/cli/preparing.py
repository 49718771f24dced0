"""`quantbench prepare`: fetch all that a configuration or sweep needs, and read it again without a network."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from quantbench.cli.flags import check_flags
from quantbench.config.composer import compose_cells
from quantbench.config.folders import Folders
from quantbench.config.identity import identity
from quantbench.core.errors import DataError
from quantbench.core.hashing import digest

if TYPE_CHECKING:
    from quantbench.config.cell import Cell
    from quantbench.datasets.documents import TextSource
    from quantbench.models.loading import ModelSource
    from quantbench.tasks.task import Task

OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
CARRIED = ("HF_HOME", "QUANTBENCH_CACHE")
USAGE = """usage: quantbench prepare [--config-dir DIR] [+sweep=NAME] [key=value ...]

Fetches the models and data sets that the same command line without `prepare` needs, says which commit each is of, and
reads all of it again without a network. In offline mode (HF_HUB_OFFLINE=1) it only reads."""


def _say(text: str = "") -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def prepare(arguments: list[str]) -> int:
    """Fetch, verify, and say what machines without a network must set. Returns the exit status.

    Raises QuantbenchError for what cannot be had, and DataError if something that was fetched cannot be read offline.
    """
    if "--help" in arguments or "-h" in arguments:
        _say(USAGE)
        return 0
    said = []
    for kind, source in _sources(arguments):
        line = source.prepare()
        said.append(line if line.startswith(kind) else f"{kind} {line}")
        _say(said[-1])
    if os.environ.get("HF_HUB_OFFLINE") == "1":
        _say("\nEverything is here: it was read without a network.")
        return 0
    changed = _read_offline(arguments, said)
    _say("\nEverything is here, and was read again without a network; offline runs read it as it is listed.")
    for line in changed:
        _say(f"  without a network: {line}")
    _say("On machines without a network set:")
    _say(f"  export {' '.join(f'{name}={value}' for name, value in OFFLINE.items())}")
    for name, folder in _folders().items():
        _say(f"  export {name}={folder}")
    return 0


def _folders() -> dict[str, Path]:
    """Where the data lie: what has to be shared or carried along."""
    from huggingface_hub.constants import HF_HOME

    from quantbench.core.cache import cache_dir

    return dict(zip(CARRIED, (Path(HF_HOME), cache_dir()), strict=True))


def _sources(arguments: list[str]) -> Iterator[tuple[str, ModelSource | TextSource | Task]]:
    """What the cells need, each thing once."""
    done: set[str] = set()
    for cell in _cells(arguments):
        texts = () if cell.calib is None else cell.calib.sources
        found: list[tuple[str, ModelSource | TextSource | Task]] = [("model", cell.model)]
        found += [("task", task) for task in cell.tasks.values()]
        found += [("text", text) for text in texts]
        for kind, source in found:
            key = digest(identity(source))
            if key not in done:
                done.add(key)
                yield kind, source


def _read_offline(arguments: list[str], said: list[str]) -> list[str]:
    """Run the same command in offline mode, in a process of its own: the libraries read that setting when imported.

    Returns the lines that differ from those said with network. Raises DataError with what it says if it fails.
    """
    done = subprocess.run(
        [sys.executable, "-m", "quantbench", "prepare", *arguments],
        env={**os.environ, **OFFLINE, "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if done.returncode:
        raise DataError(
            "what was fetched cannot be read again without a network, so runs on compute nodes would fail: "
            f"{done.stderr.strip() or done.stdout.strip()}"
        )
    known = set(said)
    again = [line for line in done.stdout.splitlines() if line.partition(" ")[0] in {"model", "task", "text"}]
    return [line for line in again if line not in known]


def _cells(arguments: list[str]) -> list[Cell]:
    parser = argparse.ArgumentParser(prog="quantbench prepare")
    parser.add_argument("--config-dir", "-cd", type=Path, action="append", default=[])
    given, rest = parser.parse_known_args(arguments)
    check_flags([one for one in rest if one.startswith("-")])
    return compose_cells(rest, Folders(given.config_dir))
