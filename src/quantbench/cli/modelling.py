"""The options of commands that model time and memory on a machine, and what they are asked for."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quantbench.report.modelled.columns import Modelled
    from quantbench.roofline.load import Load
    from quantbench.store.manifest import Manifest


def add_load(parser: argparse.ArgumentParser, default: str | None = None) -> None:
    """--hardware and what is asked of it."""
    group = parser.add_argument_group("modelled time and memory (docs/roofline.md)")
    group.add_argument(
        "--hardware",
        metavar="NAME",
        default=default,
        help="`quantbench list hardware` shows them; or FILE.yaml of yours",
    )
    group.add_argument("--batch", type=int, default=1, metavar="N", help="sequences at once (default: %(default)s)")
    group.add_argument("--context", type=int, default=2048, metavar="N", help="tokens of each (default: %(default)s)")
    group.add_argument("--new-tokens", type=int, default=0, metavar="N", help="decoded after them (default: none)")
    group.add_argument("--tensor-parallel", type=int, default=1, metavar="N", help="chips that share every matrix")
    group.add_argument("--attention", default="fused", help="fused or eager (default: %(default)s)")
    group.add_argument(
        "--memory-share", type=float, default=0.9, help="of the memory, to be used (default: %(default)s)"
    )
    group.add_argument(
        "--config-dir", "-cd", type=Path, action="append", default=[], help="a folder of options of yours"
    )


def load_of(given: argparse.Namespace) -> Load:
    """What is asked of the machine. Raises ConfigError for numbers that cannot be."""
    from quantbench.roofline.load import Load

    return Load(
        batch=given.batch,
        context=given.context,
        new_tokens=given.new_tokens,
        tensor_parallel=given.tensor_parallel,
        attention=given.attention,
        memory_share=given.memory_share,
    )


def modelled_of(given: argparse.Namespace, manifests: Sequence[Manifest], *, shapes: bool = False) -> Modelled | None:
    """What the runs of sweeps would cost on the machine that is named; None if none is.

    shapes  the bytes of their weights are wanted even where no machine is named

    Raises ConfigError for hardware, a load or a model that cannot be, ModelError if a configuration cannot be had.
    """
    load = load_of(given)
    if given.hardware is None and not shapes:
        return None
    from quantbench.config.folders import Folders
    from quantbench.config.machines import chosen_hardware, run_shapes
    from quantbench.report.modelled.columns import Modelled

    folders = Folders(given.config_dir)
    machine = None if given.hardware is None else chosen_hardware(given.hardware, folders)
    models = run_shapes(manifests, folders)
    if machine is not None:
        for model in {id(model): model for model in models.values()}.values():
            load.check(model, machine)
    return Modelled(machine, load, models)
