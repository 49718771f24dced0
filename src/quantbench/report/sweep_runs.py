"""What a sweep compares: its cells, with those that are one run made one, and the full-precision runs beside them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from quantbench.core import origin
from quantbench.core.errors import StoreError
from quantbench.core.hashing import digest
from quantbench.core.origin import Origin
from quantbench.report.columns import DATA_FREE
from quantbench.report.variants import Variants
from quantbench.store.json_record import SchemaError
from quantbench.store.manifest import CellEntry, Manifest
from quantbench.store.records import RunRecord
from quantbench.store.store import Store

ERROR_LENGTH = 300


@dataclass(frozen=True)
class SweepRun:
    """One run as it stands in a sweep: a line of its tables.

    tasks          (task, protocol) pairs; the protocol is None where it never became known
    task_origins   the data set of each task
    calib_origins  the data sets calibrated on; none for a data-free recipe

    Origins are those of the sweep's manifest, for runs with and without results alike: they were described together,
    by the command that last named the sweep, so that a description is mended by giving the command again. What the
    stored record and scores say of them is how they were described when these were made.
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
    task_origins: Mapping[str, Origin]
    calib_origins: tuple[Origin, ...]
    record: RunRecord | None

    def relation(self, task: str) -> str | None:
        """How far the task's data set lies from those calibrated on (quantbench.core.origin); None if not known."""
        return origin.relation(self.calib_origins, self.task_origins[task])

    def in_distribution(self, task: str) -> bool | None:
        """Whether it was calibrated on the task's data set; None if in part, or on none."""
        return origin.in_distribution(self.relation(task), self.calib_origins)

    def identity(self, name: str) -> int | None:
        """The seed, draw or replicate: from the record's calibration, its config, or its config's calib."""
        if self.record is None:
            return None
        known = (self.record.calibration, self.record.config, self.record.config.get("calib"))
        found = (values[name] for values in known if isinstance(values, dict) and isinstance(values.get(name), int))
        return next(found, None)

    @property
    def bits(self) -> float | None:
        """Effective bits per quantized weight; of full precision, bits per parameter of the model."""
        if self.record is None:
            return None
        if self.full_precision and self.record.effective_bits is None:
            return self.record.bits_model
        return self.record.effective_bits

    def row_key(self) -> tuple[str | int | None, ...]:
        """Equal for runs that differ in nothing but the calibration set: model and recipe by their settings."""
        replicates = (self.identity(name) for name in ("seed", "draw", "replicate"))
        config = {} if self.record is None else self.record.config
        settings = digest([config.get(key) for key in ("numerics_version", "model", "quantizer")])
        return (self.sweep, settings, self.quantizer, self.variant, self.calib_variant, self.scale, *replicates)


def sweep_runs(store: Store, manifest: Manifest) -> list[SweepRun]:
    """The runs of a sweep: what has a line in its tables.

    Cells of a data-free recipe that are one run are one line. Each full-precision run that cells are compared with
    is one per scale, whether or not it is a cell itself.
    """
    variants = Variants(manifest.cells)
    baselines = {cell.baseline_run_id for cell in manifest.cells} - {None}
    groups: dict[tuple[str, ...], list[CellEntry]] = defaultdict(list)
    for cell in manifest.cells:
        if cell.run_id in baselines:
            continue
        if cell.data_free:
            names = [cell.choice("model"), cell.choice("quantizer"), variants.scale(cell)]
            groups["data-free", *names, variants.of_recipe(cell), cell.run_id or ""].append(cell)
        else:
            groups["cell", cell.key].append(cell)
    found = [_merged(store, manifest.name, cells, variants) for cells in groups.values()]
    return found + _full_precision(store, manifest, variants)


def _full_precision(store: Store, manifest: Manifest, variants: Variants) -> list[SweepRun]:
    users: dict[tuple[str, str], list[CellEntry]] = defaultdict(list)
    for cell in manifest.cells:
        if cell.baseline_run_id is not None:
            users[cell.baseline_run_id, variants.scale(cell)].append(cell)
    found = []
    for (run_id, scale), cells in users.items():
        itself = [cell for cell in manifest.cells if cell.run_id == run_id and variants.scale(cell) == scale]
        record, damage = _record(store, run_id)
        choices = itself[0].choices if itself else record.choices if record is not None else {}
        status, error = _outcome(store, itself) if itself else ("done", None)
        if record is not None and record.status == "failed" and not itself:
            status, error = "failed", None
        if damage:
            status, error = "damaged", damage
        found.append(
            SweepRun(
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
                task_origins=_task_origins([*cells, *itself]),
                calib_origins=(),
                record=record,
            )
        )
    return found


def _merged(store: Store, sweep: str, cells: Sequence[CellEntry], variants: Variants) -> SweepRun:
    first = cells[0]
    status, error = _outcome(store, cells)
    run_id = next((cell.run_id for cell in cells if cell.run_id is not None), None)
    record, damage = _record(store, run_id)
    if damage:
        status, error = "damaged", damage
    return SweepRun(
        sweep=sweep,
        model=first.choice("model"),
        calib=first.calib_said or (DATA_FREE if first.data_free else variants.calib(first)),
        calib_variant="" if first.data_free else variants.of_calib(first),
        quantizer=first.choice("quantizer"),
        variant=variants.of_recipe(first),
        scale=variants.scale(first),
        run_id=run_id,
        baseline=first.baseline_run_id,
        status=status,
        error=error or _record_error(record, status),
        data_free=first.data_free,
        full_precision=False,
        tasks=_tasks(cells),
        task_origins=_task_origins(cells),
        calib_origins=tuple(first.calib_origins),
        record=record,
    )


def _record(store: Store, run_id: str | None) -> tuple[RunRecord | None, str | None]:
    """The record of a run, or what is wrong with it: the sweep's other runs are collated without it."""
    if run_id is None:
        return None, None
    try:
        return store.load_run(run_id), None
    except SchemaError:
        raise
    except StoreError as error:
        return None, one_line(str(error))


def _outcome(store: Store, cells: Sequence[CellEntry]) -> tuple[str, str | None]:
    """Cells of one run: it is done if it is done in one of them, as its results show though its manifest may not."""
    found = ["done" if store.is_done(cell) else cell.status for cell in cells]
    for status in ("done", "failed", "pending"):
        for cell, own in zip(cells, found, strict=True):
            if own == status:
                return status, None if status != "failed" or cell.error is None else one_line(cell.error)
    raise ValueError("no cells")


def _record_error(record: RunRecord | None, status: str) -> str | None:
    if status != "failed":
        return None
    error = None if record is None else record.error
    return "unknown error" if error is None else one_line(f"{error.get('type', 'error')}: {error.get('message', '')}")


def one_line(text: str) -> str:
    """A message as a table's footnote has it."""
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


def _task_origins(cells: Iterable[CellEntry]) -> dict[str, Origin]:
    found: dict[str, Origin] = {}
    for cell in cells:
        found = {**cell.task_origins, **found}
    return found
