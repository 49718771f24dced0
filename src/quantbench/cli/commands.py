"""The sub-commands about stored results: show and collate. Each returns its exit status."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import yaml

from quantbench.cli.entry import foreign
from quantbench.cli.modelling import add_load, load_of, modelled_of
from quantbench.cli.parser import add_margin, subcommand
from quantbench.core.errors import QuantbenchError, StoreError

if TYPE_CHECKING:
    from quantbench.store.manifest import Manifest
    from quantbench.store.records import RunRecord
    from quantbench.store.store import Store


def _say(text: str = "") -> None:
    sys.stdout.write(text + "\n")


def show(arguments: list[str]) -> int:
    """`quantbench show RUN`: settings, scores, provenance and log of a run."""
    parser = subcommand("show", "Settings, scores, provenance and log of a run.")
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
        ("choices", own_choices(record)),
        ("identity", record.config),
        ("fingerprints", record.fingerprints),
        ("calibration", record.calibration),
        (
            "calibrated on",
            "; ".join(f"{one.name}, {one.family}, {one.domain}, {one.language}" for one in record.origins),
        ),
        ("effective bits per quantized weight", record.effective_bits),
        ("effective bits per quantized key or value", record.kv_bits),
        ("bits per parameter of the model", record.bits_model),
        ("layers", f"{len(record.layers)} quantized" if record.layers else None),
        ("fallbacks", record.fallbacks),
        ("notes", record.notes),
        ("environment", record.environment),
        ("error", record.error),
    ):
        if value not in (None, {}, [], ""):
            body = (
                yaml.safe_dump(json.loads(json.dumps(value)), sort_keys=False) if not isinstance(value, str) else value
            )
            body = body.removesuffix("...\n").rstrip()
            _say(f"\n{title}:" + (f" {body}" if "\n" not in body and ":" not in body else f"\n{_indent(body)}"))
    for score in store.scores(record.run_id):
        _say(f"\nscore {score.task}   protocol {score.protocol[:12]}   {score.n_items} items, {score.n_tokens} tokens")
        for metric in score.metrics:
            error = f" ± {metric.stderr:.2g}" if metric.stderr else ""
            _say(f"  {metric.name:<14} {metric.value:.6g}{error}")
    for one in store.load_exports(record.run_id):
        proved = f"KL from the run {one['kl']:.3g}" if one["proved"] else "not proved"
        proved += "" if one.get("equivalent", True) else ", not equivalent"
        _say(f"\nexported as {one['format']}: {one['folder']}   {proved}")
    log_path = store.log_path(record.run_id)
    if log_path.exists():
        _say(f"\nlog ({log_path}):\n{_indent(log_path.read_text('utf-8', 'replace').rstrip())}")
    return 0


def own_choices(record: RunRecord) -> dict[str, str]:
    """What was chosen of the groups that a run depends on: what else its first command chose says nothing of it."""
    used = ("model", "quantizer", *(("calib", "scale") if "calib" in record.config else ()))
    return {group: option for group, option in record.choices.items() if group in used}


def _indent(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())


def collate(arguments: list[str]) -> int:
    """`quantbench collate [SWEEP ...] [--all]`: results.csv and tables of sweeps, made again from the store."""
    parser = subcommand("collate", "Make results.csv and the tables of sweeps again.")
    parser.add_argument("sweeps", nargs="*", metavar="SWEEP")
    parser.add_argument("--all", action="store_true", help="every sweep of the store")
    parser.add_argument("--verify", action="store_true", help="compute all stored values from their items again first")
    add_margin(parser)
    add_load(parser)
    given = parser.parse_args(arguments)
    load_of(given)
    from quantbench.report.margins import margins_of
    from quantbench.report.report import report
    from quantbench.report.verify import verify_sweep
    from quantbench.store.store import Store

    margins = margins_of(given.margin)
    store = Store(given.output_dir)
    names = _named(store, store.sweep_names() if given.all else given.sweeps, "collate")
    problems: list[str] = []
    for name in names:
        try:
            manifest = _manifest(store, name)
            if given.verify:
                _say(f"{name}: {verify_sweep(store, manifest)} scores are those of their items")
            report(store, [manifest], modelled=modelled_of(given, [manifest]), margins=margins)
        except BrokenPipeError:
            raise
        except Exception as error:  # what is wrong with one sweep must not keep the others from their tables
            problems.append(f"{name}: {error if isinstance(error, QuantbenchError) else foreign(error)}")
    if problems:
        raise StoreError("\n- ".join([f"collate: {len(problems)} of {len(names)} sweeps have no tables", *problems]))
    return 0


def _named(store: Store, names: list[str], command: str) -> list[str]:
    """The sweeps that were named, by names or their beginnings. Raises StoreError unless some are, and are there."""
    if not names:
        raise StoreError(f"{command}: name a sweep. In {store.root}: {', '.join(store.sweep_names()) or 'none'}")
    try:
        return [store.find_sweep(name) for name in names]
    except StoreError as error:
        raise StoreError(f"{command} {error}") from error


def _manifest(store: Store, name: str) -> Manifest:
    from quantbench.launch.overview import refreshed

    manifest = store.load_manifest(name)
    assert manifest is not None
    return refreshed(manifest, store)
