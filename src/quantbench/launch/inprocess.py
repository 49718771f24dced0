"""Running the cells of a grid in the process of the command itself."""

from __future__ import annotations

import dataclasses
import logging
import os
import socket
import time
import uuid
from collections.abc import Sequence

from quantbench.cells.session import Session
from quantbench.config.cell import Cell
from quantbench.core.progress import duration
from quantbench.launch.overview import key_of
from quantbench.launch.runner import Runner
from quantbench.launch.state import SweepState
from quantbench.store.manifest import Manifest

log = logging.getLogger("quantbench")

SAVE_EVERY_SECONDS = 5.0
"""How often the manifest is brought up to date meanwhile; what is done is seen from the store in any case."""


def run_here(session: Session, cells: Sequence[Cell], manifest: Manifest) -> Manifest:
    """Run the cells, those of one model after another; returns the manifest with what became of them."""
    models = [cell.model_part.digest for cell in cells]
    ranks = {key: rank for rank, key in enumerate(dict.fromkeys(models))}
    order = sorted(range(len(cells)), key=lambda i: ranks[models[i]])
    sweep = SweepState(session.store.root, manifest.name)
    session.attempt = uuid.uuid4().hex
    runner = Runner(session, sweep, f"command-{socket.gethostname()}-{os.getpid()}")
    entries = list(manifest.cells)
    started = saved = time.monotonic()
    ran = 0
    for position, index in enumerate(order):
        cell, number, key = cells[index], f"[{position + 1}/{len(cells)}]", key_of(entries[index])
        with sweep.claim(key, wait=True):
            status, did = runner.run(cell, key, number)
        ran += did
        left = (time.monotonic() - started) / ran * (len(cells) - position - 1) if ran else 0.0
        after = f"; about {duration(left)} left" if did and position + 1 < len(cells) else ""
        outcome = f"{status.state} in {duration(status.seconds or 0.0)}" if did else "done before"
        log.info("%s %s: %s%s", number, cell.label, outcome, after)
        entries[index] = dataclasses.replace(
            entries[index], status="failed" if status.state == "failed" else "done", error=status.error
        )
        if position + 1 == len(order) or time.monotonic() - saved > SAVE_EVERY_SECONDS:
            saved = time.monotonic()
            session.store.save_manifest(dataclasses.replace(manifest, cells=list(entries)))
    return dataclasses.replace(manifest, cells=entries)
