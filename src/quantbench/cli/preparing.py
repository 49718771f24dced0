"""`quantbench prepare`: fetch all that a configuration or sweep needs, and read it again without a network."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from quantbench.cells.reachable import with_common_advice
from quantbench.cli.entry import foreign, told
from quantbench.cli.flags import check_flags
from quantbench.config.composer import compose_cells
from quantbench.config.folders import Folders
from quantbench.config.identity import identity
from quantbench.core.errors import EXIT_FAILED, DataError, QuantbenchError
from quantbench.core.hashing import digest

if TYPE_CHECKING:
    from quantbench.config.cell import Cell
    from quantbench.datasets.documents import TextSource
    from quantbench.models.loading import ModelSource
    from quantbench.tasks.task import Task

    Source = ModelSource | TextSource | Task

OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
CARRIED = ("HF_HOME", "QUANTBENCH_CACHE")
USAGE = """usage: quantbench prepare [--config-dir DIR] [+sweep=NAME] [key=value ...]

Fetches the models and data sets that the same command line without `prepare` needs, says which commit each is of, and
reads all of it again without a network. In offline mode (HF_HUB_OFFLINE=1) it only reads. What cannot be had is listed
at the end, when all the rest was fetched."""


def _say(text: str = "") -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def prepare(arguments: list[str]) -> int:
    """Fetch, verify, and say what machines without a network must set. Returns the exit status.

    Everything is tried, and what cannot be had is listed. Raises ConfigError for options that are wrong, DataError if
    something that was fetched cannot be read offline.
    """
    if "--help" in arguments or "-h" in arguments:
        _say(USAGE)
        return 0
    said, problems = _prepared(_sources(arguments))
    if problems:
        listed = "\n".join(with_common_advice(problems))
        return told(f"prepare: not everything can be had; what can be is prepared.\n{listed}", EXIT_FAILED)
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


def _prepared(sources: Iterable[tuple[str, Source]]) -> tuple[list[str], list[str]]:
    """Prepare each thing once: what is said of those that can be had, and why the others cannot."""
    said: list[str] = []
    done: set[str] = set()
    problems: dict[str, None] = {}
    for kind, source in sources:
        try:
            key = digest(identity(source))
            if key in done:
                continue
            done.add(key)
            line = source.prepare()
        except Exception as error:  # the others are fetched all the same
            problems[str(error) if isinstance(error, QuantbenchError) else foreign(error)] = None
            continue
        said.append(line if line.startswith(kind) else f"{kind} {line}")
        _say(said[-1])
    return said, list(problems)


def _folders() -> dict[str, Path]:
    """Where the data lie: what has to be shared or carried along."""
    from huggingface_hub.constants import HF_HOME

    from quantbench.core.cache import cache_dir

    return dict(zip(CARRIED, (Path(HF_HOME), cache_dir()), strict=True))


def _sources(arguments: list[str]) -> Iterator[tuple[str, Source]]:
    """What the cells need, of which several may need the same."""
    for cell in _cells(arguments):
        texts = () if cell.calib is None else cell.calib.sources
        yield "model", cell.model
        yield from (("task", task) for task in cell.tasks.values())
        yield from (("text", text) for text in texts)


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
