"""Where a sweep stands, as a table for people: short however many cells there are, what needs a person first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import get_args

from tabulate import tabulate

from quantbench.core.paths import brief
from quantbench.core.progress import duration
from quantbench.launch.overview import OPEN, UNFINISHED, CellState, CellView, key_of
from quantbench.store.manifest import CellEntry, Manifest

SHOWN_DIGITS = 8
"""Of a cell's key."""
MOST_ROWS = 60
"""Rows where the length of a screen is not known."""
ORDER: tuple[CellState, ...] = (*UNFINISHED, "running", "queued", "new", "done")
HEADERS = ("cell", "state", "what", "job", "host", "started", "error")
assert set(ORDER) == set(get_args(CellState))


def as_table(manifest: Manifest, views: Mapping[str, CellView], *, everything: bool, most: int = MOST_ROWS) -> str:
    """Cells that are not done, at most `most` of them, each state in its share, and how many are in which state.

    everything  all cells, finished ones too
    """
    entries: dict[CellState, list[CellEntry]] = {state: [] for state in ORDER}
    for entry in manifest.cells:
        entries[views[key_of(entry)].state].append(entry)
    listed = {state: found for state, found in entries.items() if found and (everything or state != "done")}
    counts = {state: len(found) for state, found in listed.items()}
    shown = counts if everything else shares(counts, most)
    names = cell_names(manifest.cells)
    rows = [
        _row(names[entry.key], views[key_of(entry)])
        for state, found in listed.items()
        for entry in found[: shown[state]]
    ]
    parts = [tabulate(rows, headers=HEADERS, disable_numparse=True)] if rows else []
    for state, found in listed.items():
        hidden = found[shown[state] :]
        if hidden:
            parts.append(f"... and {len(hidden)} more {state}{_kinds(hidden, views) if state == 'failed' else ''}")
    counted = ", ".join(f"{len(found)} {state}" for state, found in entries.items() if found)
    left = seconds_left(views)
    parts.append(f"\n{manifest.name}: {counted}" + (f"; about {duration(left)} left" if left else ""))
    return "\n".join(parts).lstrip("\n")


def shares(counts: Mapping[CellState, int], most: int) -> dict[CellState, int]:
    """How many of each to show, `most` in all: what one state does not need, those with more have."""
    found: dict[CellState, int] = {}
    for position, state in enumerate(sorted(counts, key=lambda state: counts[state])):
        found[state] = min(counts[state], (most - sum(found.values())) // (len(counts) - position))
    return found


def cell_names(cells: Sequence[CellEntry]) -> dict[str, str]:
    """What each cell is called, by its key: what tells it apart from the others, in full; of a lone cell all it is."""
    parts: dict[str, list[str]] = {}
    for cell in cells:
        own = [one.lstrip("+~") for one in cell.overrides]
        said = [one for one in own if one.partition("=")[0] not in cell.choices]
        parts[cell.key] = [*(f"{group}={choice}" for group, choice in cell.choices.items()), *said]
    everywhere = set.intersection(*map(set, parts.values())) if len(parts) > 1 else set()
    apart = {key: [part for part in own if part not in everywhere] for key, own in parts.items()}
    short = {key: " ".join(map(brief, own)) for key, own in apart.items()}
    clear = len(set(short.values())) == len(short)
    return short if clear else {key: " ".join(own) for key, own in apart.items()}


def seconds_left(views: Mapping[str, CellView]) -> float | None:
    """What is open, at the pace of the finished cells and as many at a time as run now; None where nothing is known."""
    took = [v.status.seconds for v in views.values() if v.state == "done" and v.status and v.status.seconds]
    open_now = sum(view.state in OPEN for view in views.values())
    running = sum(view.state == "running" for view in views.values())
    return sum(took) / len(took) * open_now / max(1, running) if took and open_now else None


def _row(name: str, view: CellView) -> list[str]:
    known = view.status
    age = "" if view.age is None or view.state in {"queued", "new"} else duration(view.age)
    error = view.error.splitlines()[0][:100] if view.error else ""
    host = known.host if known and view.state != "queued" else ""
    return [view.key[:SHOWN_DIGITS], view.state, name, view.job, host, age, error]


def _kinds(entries: Sequence[CellEntry], views: Mapping[str, CellView]) -> str:
    """What cells failed of, the most frequent first."""
    kinds = Counter((views[key_of(entry)].error or "").partition(":")[0] for entry in entries)
    return f" ({', '.join(f'{n} {kind}' for kind, n in kinds.most_common(3))})"
