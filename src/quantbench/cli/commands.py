"""The sub-commands beside Hydra's overrides: list, prepare, show, collate, compare. Each returns its exit status."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from quantbench.cli.help import GROUPS
from quantbench.config.compose import config_dir
from quantbench.core.errors import ConfigError, StoreError
from quantbench.core.paths import local_path

if TYPE_CHECKING:
    from quantbench.store.manifest import Manifest
    from quantbench.store.store import Store


def _say(text: str = "") -> None:
    sys.stdout.write(text + "\n")


def list_options(arguments: list[str]) -> int:
    """`quantbench list [GROUP]`: every option with a line saying what it is."""
    groups = [group for part in GROUPS.values() for group in part]
    parser = argparse.ArgumentParser(prog="quantbench list", description="Options, each with a line saying what it is.")
    parser.add_argument("group", nargs="?", help=f"one of {', '.join(groups)}; default: all")
    parser.add_argument("--config-dir", type=Path, help="a folder with options of yours")
    given = parser.parse_args(arguments)
    if given.group is not None and given.group not in groups:
        raise ConfigError(f"list {given.group}: no such group. Groups: {', '.join(groups)}")
    folders = [config_dir(), *([given.config_dir] if given.config_dir else [])]
    for group in [given.group] if given.group else groups:
        files = sorted(f for folder in folders for f in (folder / group).glob("*.yaml"))
        _say(f"{'+sweep' if group == 'sweep' else group}=")
        for file in files:
            _say(f"  {file.stem:<18} {_description(file)}")
        if given.group in {"calib", "eval", "task", "text", "rows"}:
            _say_data_sets(folders, given.group, [file.stem for file in files])
        _say()
    return 0


def _say_data_sets(folders: list[Path], group: str, options: list[str]) -> None:
    """A line for each data set of each option: name, family, domain, language, licence and size, from its yaml."""
    from tabulate import tabulate

    from quantbench.cli.listing import HEADER, SOURCES, data_set, data_sets_of, find

    rows = []
    for option in options:
        file = find(folders, group, option) if group in SOURCES else None
        found = [data_set(file)] if file is not None else data_sets_of(folders, group, option)
        rows += [(option if number == 0 else "", *one.cells) for number, one in enumerate(found)]
    _say("\n" + tabulate(rows, headers=[f"{group}=", *HEADER], tablefmt="simple", disable_numparse=True))


def _description(file: Path) -> str:
    """The first comment line of an option that is not a Hydra directive, without the command it repeats."""
    for line in file.read_text().splitlines():
        text = line.lstrip("# ").strip()
        if line.startswith("#") and not text.startswith("@package"):
            command, colon, rest = text.partition(": ")
            return rest if (colon and "=" in command) or command == "eval task" else text
    return ""


def prepare(arguments: list[str]) -> int:
    """`quantbench prepare [key=value ...]`: fetch models and data of every cell of a configuration or sweep."""
    from quantbench.cli.entry import explaining_composition
    from quantbench.cli.preparing import prepare as run

    with explaining_composition():
        return run(arguments)


def _output_parser(name: str, description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"quantbench {name}", description=description)
    default = os.environ.get("QUANTBENCH_OUTPUTS", "outputs")
    parser.add_argument(
        "--output-dir", type=local_path, default=default, help="where results lie (default: %(default)s)"
    )
    return parser


def show(arguments: list[str]) -> int:
    """`quantbench show RUN`: settings, scores, provenance and log of a run."""
    parser = _output_parser("show", "Settings, scores, provenance and log of a run.")
    parser.add_argument("run", help="a run id, or its first characters")
    given = parser.parse_args(arguments)
    from quantbench.store.store import Store

    store = Store(given.output_dir)
    found = [run_id for run_id in store.run_ids() if run_id.startswith(given.run)]
    if len(found) != 1:
        known = f"{len(found)} runs start like that" if found else f"{len(store.run_ids())} runs are stored"
        raise StoreError(f"show {given.run}: {'not unique' if found else 'no such run'} in {given.output_dir}; {known}")
    record = store.load_run(found[0])
    assert record is not None
    _say(f"run {record.run_id}   {record.status}   {record.created}")
    for title, value in (
        ("choices", record.choices),
        ("identity", record.config),
        ("fingerprints", record.fingerprints),
        ("calibration", record.calibration),
        ("effective bits per quantized weight", record.effective_bits),
        ("effective bits per quantized key or value", record.kv_bits),
        ("bits per parameter of the model", record.bits_model),
        ("layers", f"{len(record.layers)} quantized"),
        ("fallbacks", record.fallbacks),
        ("notes", record.notes),
        ("environment", record.environment),
        ("error", record.error),
    ):
        if value not in (None, {}, []):
            body = (
                yaml.safe_dump(json.loads(json.dumps(value)), sort_keys=False) if not isinstance(value, str) else value
            )
            body = body.removesuffix("...\n").rstrip()
            _say(f"\n{title}:" + (f" {body}" if "\n" not in body and ":" not in body else f"\n{_indent(body)}"))
    for score in store.scores(record.run_id):
        _say(f"\nscore {score.task}   protocol {score.protocol[:12]}   {score.n_items} items, {score.n_tokens} tokens")
        for metric in score.metrics:
            error = "" if metric.stderr is None else f" ± {metric.stderr:.2g}"
            _say(f"  {metric.name:<14} {metric.value:.6g}{error}")
    log_path = store.log_path(record.run_id)
    if log_path.exists():
        _say(f"\nlog ({log_path}):\n{_indent(log_path.read_text(errors='replace').rstrip())}")
    return 0


def _indent(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())


def collate(arguments: list[str]) -> int:
    """`quantbench collate [SWEEP ...] [--all]`: results.csv and tables of sweeps, made again from the store."""
    parser = _output_parser("collate", "Make results.csv and the tables of sweeps again.")
    parser.add_argument("sweeps", nargs="*", metavar="SWEEP")
    parser.add_argument("--all", action="store_true", help="every sweep of the store")
    given = parser.parse_args(arguments)
    from quantbench.report.report import report
    from quantbench.store.store import Store

    store = Store(given.output_dir)
    names = store.sweep_names() if given.all else given.sweeps
    report(store, _manifests(store, names, "collate"))
    return 0


def compare(arguments: list[str]) -> int:
    """`quantbench compare SWEEP ...`: recipes side by side, with paired differences from one of them."""
    parser = _output_parser("compare", "One table of all recipes of sweeps, with what they cost.")
    parser.add_argument("sweeps", nargs="*", metavar="SWEEP")
    parser.add_argument("--metric", action="append", help="may be repeated (default: those that have a table)")
    parser.add_argument("--against", metavar="QUANTIZER", help="also paired differences from this recipe")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table there, too")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the table there, too")
    given = parser.parse_args(arguments)
    from quantbench.core.files import write_text
    from quantbench.report.compare import recipe_table
    from quantbench.report.render import console, csv_table, markdown
    from quantbench.store.store import Store

    store = Store(given.output_dir)
    table = recipe_table(store, _manifests(store, given.sweeps, "compare"), given.metric, given.against)
    for path, text in ((given.markdown, markdown(table)), (given.csv, csv_table(table))):
        if path is not None:
            write_text(path, text)
    _say(console(table))
    return 0


def _manifests(store: Store, names: list[str], command: str) -> list[Manifest]:
    from quantbench.launch.overview import refreshed

    known = store.sweep_names()
    if not names:
        raise StoreError(f"{command}: name a sweep. In {store.root}: {', '.join(known) or 'none'}")
    manifests = []
    for name in names:
        manifest = store.load_manifest(name)
        if manifest is None:
            raise StoreError(f"{command} {name}: no such sweep in {store.root}. Sweeps: {', '.join(known) or 'none'}")
        manifests.append(refreshed(manifest, store))
    return manifests
