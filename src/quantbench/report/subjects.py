"""What a sweep compares: its cells, with those that are one run made one, and the full-precision runs beside them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from quantbench.core.paths import short_names
from quantbench.report.columns import DATA_FREE
from quantbench.store.manifest import CellEntry, Manifest
from quantbench.store.records import RunRecord
from quantbench.store.store import Store

ROW_KEYS = {"seed", "replicate", "calib.seed", "calib.draw"}
"""Overrides that have a column of their own."""

FILE_KEY = "calib.source.path"
"""The override that says which file of the user's is calibrated on: where it differs, it names the calibration set."""

ERROR_LENGTH = 300

IDLE: tuple[Any, ...] = (None, [], {}, False, "all")
"""Values of a policy's options that change nothing (0 equals False)."""


@dataclass(frozen=True)
class Subject:
    """One run as it stands in a sweep: a line of its tables.

    tasks  (task, protocol) pairs; the protocol is None where it never became known
    """

    sweep: str
    model: str
    calib: str
    calib_variant: str
    quantizer: str
    variant: str
    scale: str
    run_id: str | None
    baseline: str | None
    status: str
    error: str | None
    data_free: bool
    full_precision: bool
    tasks: tuple[tuple[str, str | None], ...]
    in_distribution: Mapping[str, bool]
    relation: Mapping[str, str]
    record: RunRecord | None

    def identity(self, name: str) -> int | None:
        """The seed, draw or replicate: from the record's calibration, its config, or its config's calib."""
        if self.record is None:
            return None
        places = (self.record.calibration, self.record.config, self.record.config.get("calib"))
        found = (place[name] for place in places if isinstance(place, dict) and isinstance(place.get(name), int))
        return next(found, None)

    def row_key(self) -> tuple[str | int | None, ...]:
        """Equal for subjects that differ in nothing but the calibration set."""
        replicates = (self.identity(name) for name in ("seed", "draw", "replicate"))
        return (self.sweep, self.model, self.quantizer, self.variant, self.calib_variant, self.scale, *replicates)


def subjects(store: Store, manifest: Manifest) -> list[Subject]:
    """The subjects of a sweep: what has a line in its tables.

    Cells of a data-free recipe that are one run are one subject. Each full-precision run that cells are compared with
    is one per scale, whether or not it is a cell itself.
    """
    varying = _varying(manifest.cells)
    calibs = _calib_names(manifest.cells, FILE_KEY in varying)
    varying -= {FILE_KEY}
    baselines = {cell.baseline_run_id for cell in manifest.cells} - {None}
    groups: dict[tuple[str, ...], list[CellEntry]] = defaultdict(list)
    for cell in manifest.cells:
        if cell.run_id in baselines:
            continue
        if cell.data_free:
            names = [cell.choice(group) for group in ("model", "quantizer", "scale")]
            groups["data-free", *names, _variant(cell, varying), cell.run_id or ""].append(cell)
        else:
            groups["cell", cell.key].append(cell)
    found = [_merged(store, manifest.name, cells, varying, calibs) for cells in groups.values()]
    return found + _full_precision(store, manifest)


def _full_precision(store: Store, manifest: Manifest) -> list[Subject]:
    users: dict[tuple[str, str], list[CellEntry]] = defaultdict(list)
    for cell in manifest.cells:
        if cell.baseline_run_id is not None:
            users[cell.baseline_run_id, cell.choice("scale")].append(cell)
    found = []
    for (run_id, scale), cells in users.items():
        itself = [cell for cell in manifest.cells if cell.run_id == run_id and cell.choice("scale") == scale]
        record = store.load_run(run_id)
        choices = itself[0].choices if itself else record.choices if record is not None else {}
        status, error = _outcome(itself) if itself else ("done", None)
        if record is not None and record.status == "failed" and not itself:
            status, error = "failed", None
        found.append(
            Subject(
                sweep=manifest.name,
                model=cells[0].choice("model"),
                calib=DATA_FREE,
                calib_variant="",
                quantizer=choices.get("quantizer", "full precision"),
                variant="",
                scale=scale,
                run_id=run_id,
                baseline=None,
                status=status,
                error=error or _record_error(record, status),
                data_free=True,
                full_precision=True,
                tasks=_tasks([*cells, *itself]),
                in_distribution={},
                relation={},
                record=record,
            )
        )
    return found


def _merged(
    store: Store, sweep: str, cells: Sequence[CellEntry], varying: set[str], calibs: Mapping[str, str]
) -> Subject:
    first = cells[0]
    status, error = _outcome(cells)
    run_id = next((cell.run_id for cell in cells if cell.run_id is not None), None)
    record = None if run_id is None else store.load_run(run_id)
    return Subject(
        sweep=sweep,
        model=first.choice("model"),
        calib=DATA_FREE if first.data_free else calibs[first.key],
        calib_variant="" if first.data_free else _variant(first, varying, calib=True),
        quantizer=first.choice("quantizer"),
        variant=_variant(first, varying),
        scale=first.choice("scale"),
        run_id=run_id,
        baseline=first.baseline_run_id,
        status=status,
        error=error or _record_error(record, status),
        data_free=first.data_free,
        full_precision=False,
        tasks=_tasks(cells),
        in_distribution={} if first.data_free else first.in_distribution,
        relation={} if first.data_free else first.relation,
        record=record,
    )


def _outcome(cells: Sequence[CellEntry]) -> tuple[str, str | None]:
    """Cells of one run: it is done if it is done in one of them."""
    for status in ("done", "failed", "pending"):
        for cell in cells:
            if cell.status == status:
                return status, None if status != "failed" or cell.error is None else _one_line(cell.error)
    raise ValueError("no cells")


def _record_error(record: RunRecord | None, status: str) -> str | None:
    if status != "failed":
        return None
    error = None if record is None else record.error
    return "unknown error" if error is None else _one_line(f"{error.get('type', 'error')}: {error.get('message', '')}")


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= ERROR_LENGTH else line[: ERROR_LENGTH - 3] + "..."


def _tasks(cells: Iterable[CellEntry]) -> tuple[tuple[str, str | None], ...]:
    protocols: dict[str, set[str]] = {}
    for cell in cells:
        for task, protocol in cell.tasks.items():
            protocols.setdefault(task, set()).update([] if protocol is None else [protocol])
    pairs: list[tuple[str, str | None]] = []
    for task, known in sorted(protocols.items()):
        pairs += [(task, protocol) for protocol in sorted(known)] or [(task, None)]
    return tuple(pairs)


def _overrides(cell: CellEntry) -> dict[str, str]:
    pairs = (override.lstrip("+~").partition("=") for override in cell.overrides)
    return {
        key: value
        for key, _, value in pairs
        if key not in ROW_KEYS and key not in cell.choices and not key.startswith("hydra.")
    }


def _calib_names(cells: Sequence[CellEntry], by_file: bool) -> dict[str, str]:
    """What each cell's calibration set is called, by the cell's key: the option, or the name of the user's file."""
    files = {cell.key: _overrides(cell)[FILE_KEY].strip("'\"") for cell in cells if FILE_KEY in _overrides(cell)}
    short = short_names(files.values())
    several = len({cell.choice("calib") for cell in cells}) > 1
    names = {}
    for cell in cells:
        name = short[files[cell.key]] if by_file and cell.key in files else ""
        names[cell.key] = " ".join(p for p in (cell.choice("calib") if several or not name else "", name) if p)
    return names


def _varying(cells: Sequence[CellEntry]) -> set[str]:
    """The keys of overrides that are not the same in all cells."""
    every = [_overrides(cell) for cell in cells]
    keys = {key for overrides in every for key in overrides}
    return {key for key in keys if len({overrides.get(key) for overrides in every}) > 1}


def _variant(cell: CellEntry, varying: set[str], calib: bool = False) -> str:
    named = {key: value for key, value in sorted(_overrides(cell).items()) if key in varying}
    prefix = "calib." if calib else "quantizer."
    kept = {key: value for key, value in named.items() if key.startswith("calib.") == calib}
    return ", ".join(f"{key.removeprefix(prefix)}={value}" for key, value in kept.items())


def settings(config: dict[str, Any]) -> str:
    """A recipe's resolved configuration in one line: "weight=IntFormat(bits=4, ...), rounding=Gptq(...)".

    Left out are parts that are not used (null, empty), what a policy does not do, and `about`; every other option of
    the parts that are used is there.
    """
    idle = (None, [], {}) if "policy" in config or not config.get("_target_", "").endswith(".Policy") else IDLE
    return ", ".join(
        f"{key}={_setting(value)}"
        for key, value in config.items()
        if value not in idle and key != "about" and not key.startswith("_") and _setting(value)
    )


def _setting(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, dict):
        return str(value)
    target = value.get("_target_")
    inner = settings(value)
    return f"{str(target).rpartition('.')[2]}({inner})" if target else inner
