"""`quantbench roofline`: modelled time and memory of a model, a run, or the runs of a sweep, on a machine."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from quantbench.cli.modelling import add_load, load_of, modelled_of
from quantbench.cli.pareto import suffix_of
from quantbench.cli.parser import subcommand
from quantbench.core.errors import ConfigError, StoreError
from quantbench.core.paths import local_path

if TYPE_CHECKING:
    from quantbench.roofline.cost import Cost
    from quantbench.roofline.precision import Precision
    from quantbench.roofline.shape import Shape
    from quantbench.store.manifest import Manifest
    from quantbench.store.store import Store

EXAMPLES = """\
WHAT is a sweep, an option of `quantbench list model`, model=NAME and its keys, a folder with a config.json, or the
first characters of a run's id; of equal names the first in this order.

  quantbench roofline llama2_7b --hardware a100_80gb --weight-bits 4.15
  quantbench roofline model=local model.path=FOLDER --hardware h100_sxm --batch 16 --context 4096
  quantbench roofline demo --hardware rtx_4090                  every run of a sweep, by its true bits
  quantbench roofline 8e68 --hardware a100_80gb --figure roofline.svg
"""

BITS = ("weight_bits", "activation_bits", "kv_bits", "arithmetic")


def roofline(arguments: list[str]) -> int:
    """`quantbench roofline WHAT --hardware NAME [--batch N] [--context N] ...`."""
    given = _parser().parse_args(arguments)
    if given.hardware is None:
        raise ConfigError("roofline: name a machine: --hardware NAME (quantbench list hardware)")
    load_of(given)
    from quantbench.store.store import Store

    store = Store(given.output_dir)
    name = given.what[0]
    if len(given.what) == 1 and name in store.sweep_names():
        return _sweep(given, store, name)
    cost = _of_model(given) or _of_run(given, store, name)
    from quantbench.report.modelled.figure import roofline_figure
    from quantbench.report.modelled.tables import operator_table, summary
    from quantbench.report.page.drawing import write_figures
    from quantbench.report.render import console

    if given.figure is not None:
        figure = dataclasses.replace(roofline_figure(cost), slug=given.figure.stem)
        write_figures(given.figure.parent, [figure], [suffix_of(given.figure)])
    tables = [operator_table(cost, "prefill", cost.prefill), operator_table(cost, "decode", cost.decode)]
    sys.stdout.write("\n".join(console(table) for table in tables) + "\n" + "\n".join(summary(cost)) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = subcommand("roofline", "Modelled time and memory, from sizes alone: no weights, no machine.", EXAMPLES)
    parser.add_argument("what", nargs="+", metavar="WHAT", help="a sweep, model, folder or run")
    parser.add_argument("--weight-bits", type=float, metavar="BITS", help="of a model's blocks, scales counted (16)")
    parser.add_argument("--activation-bits", type=float, metavar="BITS", help="of inputs of quantized layers (16)")
    parser.add_argument("--kv-bits", type=float, metavar="BITS", help="of the key-value cache, scales counted (16)")
    parser.add_argument("--arithmetic", help="of quantized layers: fp16, int8, fp8 or fp4 (fp16)")
    parser.add_argument("--figure", type=local_path, metavar="FILE", help=".svg, .png or .pdf of the roofline")
    add_load(parser)
    return parser


def _sweep(given: argparse.Namespace, store: Store, name: str) -> int:
    """A line for each run."""
    _no_bits(given, f"{name} is a sweep")
    if given.figure is not None:
        raise ConfigError("--figure: the roofline is of one model: name one of the sweep's runs")
    from quantbench.report.modelled.tables import run_table, source
    from quantbench.report.render import console
    from quantbench.report.sweep_runs import sweep_runs

    manifest = _refreshed(store, name)
    modelled = modelled_of(given, [manifest])
    assert modelled is not None
    assert modelled.machine is not None
    runs = sweep_runs(store, manifest)
    rows = modelled.rows(runs)
    if not rows:
        raise StoreError(f"roofline {name}: no run of it is finished yet")
    sys.stdout.write(console(run_table(runs, rows, f"{name} on {modelled.words}")))
    sys.stdout.write(f"\n{source(modelled.machine)}\nModelled, not measured (docs/roofline.md).\n")
    return 0


def _of_model(given: argparse.Namespace) -> Cost | None:
    """What a model costs in the bits that are given; None if no model is named."""
    from quantbench.config.catalogue import Catalogue
    from quantbench.config.folders import Folders
    from quantbench.config.machines import chosen_hardware, folder_shape, named_shape

    folders = Folders(given.config_dir)
    name = given.what[0]
    overrides: list[str] | None = None
    if all("=" in one for one in given.what):
        if wrong := [one for one in given.what if not one.startswith(("model=", "model."))]:
            raise ConfigError(
                f"roofline {wrong[0]}: only model=NAME and its keys; a recipe's bits are those of its run"
            )
        overrides = list(given.what)
    elif len(given.what) > 1:
        raise ConfigError(f"roofline {' '.join(given.what)}: name one sweep, model, folder or run")
    elif name in Catalogue(folders).files("model"):
        overrides = [f"model={name}"]
    elif not Path(name).exists():
        return None
    machine, precision, load = chosen_hardware(given.hardware, folders), _precision(given), load_of(given)
    model: Shape = folder_shape(Path(name)) if overrides is None else named_shape(overrides, folders)
    from quantbench.roofline.cost import Cost

    return Cost(model, precision, load, machine)


def _precision(given: argparse.Namespace) -> Precision:
    from quantbench.core.build import unknown_choice
    from quantbench.roofline.hardware import RATES
    from quantbench.roofline.precision import SERVED, Precision

    bits = []
    for key in BITS[:3]:
        value = getattr(given, key)
        if value is not None and not 0 < value <= SERVED:
            raise ConfigError(f"--{key.replace('_', '-')} {value}: expected a number above 0 and up to 16")
        bits.append(SERVED if value is None else value)
    arithmetic = given.arithmetic or "fp16"
    if arithmetic not in RATES:
        raise ConfigError(f"--{unknown_choice('arithmetic', arithmetic, list(RATES))}")
    return Precision(weight=bits[0], inputs=bits[1], kv=bits[2], arithmetic=arithmetic)


def _of_run(given: argparse.Namespace, store: Store, start: str) -> Cost:
    """What a stored run costs, by the bits in its record."""
    from quantbench.config.catalogue import Catalogue
    from quantbench.config.folders import Folders

    found = [run_id for run_id in store.run_ids() if run_id.startswith(start)]
    if len(found) != 1:
        models = ", ".join(Catalogue(Folders(given.config_dir)).files("model"))
        raise StoreError(
            f"roofline {start}: {f'{len(found)} runs begin like that' if found else 'no sweep, model, folder or run'}. "
            f"Models: {models}. Sweeps: {', '.join(store.sweep_names()) or 'none'}. Runs: {len(store.run_ids())}"
        )
    _no_bits(given, f"{start} is a run")
    manifests = [
        manifest
        for manifest in store.manifests()
        if any(found[0] in {cell.run_id, cell.baseline_run_id} for cell in manifest.cells)
    ]
    if not manifests:
        raise StoreError(
            f"roofline {start}: the run is in no sweep of {store.root}, so where its model is, is not known"
        )
    modelled = modelled_of(given, manifests[:1])
    record = store.load_run(found[0])
    assert modelled is not None
    assert record is not None
    if record.status != "quantized":
        raise StoreError(f"roofline {start}: the run has failed")
    return modelled.cost(record)


def _no_bits(given: argparse.Namespace, why: str) -> None:
    for key in BITS:
        if getattr(given, key) is not None:
            raise ConfigError(
                f"--{key.replace('_', '-')}: {why}, whose bits are those of its records; it is for models"
            )


def _refreshed(store: Store, name: str) -> Manifest:
    from quantbench.launch.overview import refreshed

    manifest = store.load_manifest(name)
    assert manifest is not None
    return refreshed(manifest, store)
