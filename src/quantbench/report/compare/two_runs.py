"""Two runs explained: the settings in which they differ, their scores, and what a paired test says of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from quantbench.core.errors import StoreError
from quantbench.metrics.metric import Metric
from quantbench.report.alike import differing, flat
from quantbench.report.arms import Arm, arms
from quantbench.report.columns import DATA_FREE
from quantbench.report.compare.against import pairs_of
from quantbench.report.compare.overview import spent
from quantbench.report.compare.rows import Line, lines
from quantbench.report.comparisons import Compared
from quantbench.report.digits import with_error
from quantbench.report.margins import check_margins
from quantbench.report.pairs import columns_of
from quantbench.report.scored import SweepScores
from quantbench.report.sweep_runs import SweepRun, one_line
from quantbench.report.table import Table, TableCell
from quantbench.store.manifest import Manifest
from quantbench.store.records import RunRecord, Score
from quantbench.store.store import Store

ABSENT = "–"


@dataclass(frozen=True)
class Pair:
    """Two runs of one model: records, scores, arms of one run each, comparisons, and why some scores have none."""

    records: tuple[RunRecord, RunRecord]
    scores: tuple[list[Score], list[Score]]
    arms: tuple[Arm, Arm]
    lines: list[Line]
    reasons: list[str]


def find_run(store: Store, beginning: str) -> str:
    """The id of the run that begins like that. Raises StoreError if it is not one."""
    known = store.run_ids()
    found = [beginning] if beginning in known else [one for one in known if beginning and one.startswith(beginning)]
    if len(found) != 1:
        problem = f"{len(found)} runs begin like that: {', '.join(found[:5])}" if found else "no such run"
        raise StoreError(f"{beginning}: {problem}, in {store.root}; {len(known)} runs are stored")
    return found[0]


def pair_of(
    store: Store,
    first: str,
    second: str,
    metrics: Sequence[str] | None = None,
    margins: Mapping[str, float] | None = None,
) -> Pair:
    """The runs of two ids, compared in the metrics that both have under one protocol.

    metrics, margins: as for quantbench.report.compare.against. Raises StoreError for one run twice, for runs of two
    models, and for a metric that is not compared; ConfigError for a margin that is none.
    """
    if first == second:
        raise StoreError(f"compare {first}: that is one run; name two")
    records = _record(store, first), _record(store, second)
    models = [record.config.get("model") for record in records]
    if models[0] != models[1]:
        names = " and ".join(record.choices.get("model", "unknown") for record in records)
        apart = ", ".join(differing(flat(model or {}) for model in models))
        raise StoreError(
            f"compare {first} {second}: they are of two models ({names}; different: {apart}). A difference would be "
            "that of the models, not of the recipes: compare runs of one model"
        )
    scores = store.scores(first), store.scores(second)
    sides = _arms([_run(record, own) for record, own in zip(records, scores, strict=True)])
    reader = SweepScores(store, Manifest(name="runs", overrides=[], cells=[]))
    compared = Compared(list(pairs_of(sides[0], columns_of(reader, sides[0]), sides[1], columns_of(reader, sides[1]))))
    if compared.names or metrics:
        check_margins(margins or {}, set(compared.names))
    shown = lines(compared, metrics, margins or {})
    return Pair(records, scores, sides, shown, _reasons(records, scores))


def name_of_run(pair: Pair, index: int) -> str:
    """The recipe of one of the two runs and what it was calibrated on, in words."""
    arm = pair.arms[index]
    return arm.recipe if arm.first.data_free else f"{arm.recipe}, calibrated on {arm.calib}"


def settings_table(store: Store, pair: Pair) -> Table:
    """What the runs are, and every setting of their identities that differs, by its dotted key."""
    told: list[tuple[str, ...]] = [
        ("status", *(_status(record) for record in pair.records)),
        ("recipe", *(arm.recipe for arm in pair.arms)),
        ("calibrated on", *(arm.calib for arm in pair.arms)),
        ("calibration tokens", *(_number((one.calibration or {}).get("n_tokens"), ",d") for one in pair.records)),
        ("effective bits", *(_number(arm.first.bits, ".4g") for arm in pair.arms)),
        ("CPU s", *(spent(store, arm.first.run_id or "", full_precision=False)[0].value for arm in pair.arms)),
        ("made", *(record.created for record in pair.records)),
    ]
    rows = [row for row in told if any(row[1:])]
    identities = [flat(record.config) for record in pair.records]
    keys = differing(identities)
    rows += [(key, *(str(one[key]) if key in one else ABSENT for one in identities)) for key in keys]
    notes = [] if keys else ["Their settings are the same."]
    header = ["", *(record.run_id for record in pair.records)]
    cells = [[TableCell(text) for text in row] for row in rows]
    return Table("settings", "What differs", header, cells, [f"{ABSENT} = that run has no such setting."], notes)


def scores_table(pair: Pair) -> Table:
    """The scores side by side, those of one run alone included, in the metrics that are compared; all if none is."""
    values = [{(s.task, s.protocol, m.name): m for s in own for m in s.metrics} for own in pair.scores]
    chosen = {line.row["metric"] for line in pair.lines}
    keys = [key for key in dict.fromkeys([*values[0], *values[1]]) if not chosen or key[2] in chosen]
    texts = [[f"{key[0]} [{key[1][:8]}]", key[2], *(_shown(one.get(key)) for one in values)] for key in keys]
    header = ["test", "metric", *(record.run_id for record in pair.records)]
    cells = [[TableCell(text) for text in row] for row in texts]
    caption = ["Values ± standard errors over clusters of test items; in brackets the protocol."]
    return Table("scores", "Scores", header, cells, caption)


def _record(store: Store, run_id: str) -> RunRecord:
    record = store.load_run(run_id)
    assert record is not None
    return record


def _run(record: RunRecord, scores: Sequence[Score]) -> SweepRun:
    """The run as it would stand in a sweep of its own."""
    data_free = record.calibration is None
    read = record.choices.get("quantizer") == "checkpoint"
    return SweepRun(
        sweep="",
        model=record.choices.get("model", ""),
        calib="unknown"
        if read
        else DATA_FREE
        if data_free
        else " + ".join(one.name for one in record.origins) or "unknown",
        calib_variant="",
        quantizer=record.choices.get("quantizer", ""),
        variant="",
        scale=record.choices.get("scale", ""),
        run_id=record.run_id,
        baseline=next((score.reference for score in scores if score.reference), None),
        status="done",
        error=None,
        data_free=data_free,
        full_precision=record.choices.get("quantizer") == "none",
        tasks=tuple((score.task, score.protocol) for score in scores),
        task_origins={score.task: score.origin for score in scores},
        calib_origins=tuple(record.origins),
        record=record,
    )


def _arms(runs: Sequence[SweepRun]) -> tuple[Arm, Arm]:
    """An arm for each of two runs; of one arm, if they differ only in draws, each is called by its id."""
    found = arms(runs)
    if len(found) == 2:
        return found[0], found[1]
    whole = found[0]
    parts = {
        run.run_id: replace(whole, runs=(run,), keys=(key,), calib=f"{whole.calib} [{run.run_id}]")
        for run, key in zip(whole.runs, whole.keys, strict=True)
    }
    return parts[runs[0].run_id], parts[runs[1].run_id]


def _reasons(records: Sequence[RunRecord], scores: Sequence[list[Score]]) -> list[str]:
    """Why scores are not compared: a run has none, or they are under other protocols."""
    without = [record.run_id for record, own in zip(records, scores, strict=True) if not own]
    if without:
        return [f"Run {run_id} has no scores: no difference can be shown." for run_id in without]
    found = []
    for task in sorted({score.task for own in scores for score in own}):
        ours, theirs = ([score for score in own if score.task == task] for own in scores)
        if not ours or not theirs:
            missing = records[1 if ours else 0].run_id
            found.append(f"{task}: run {missing} has no score on it.")
        elif not {score.protocol for score in ours} & {score.protocol for score in theirs}:
            apart = differing(flat(one[0].protocol_values) for one in (ours, theirs))
            found.append(f"{task}: not compared, it was scored under two protocols (different: {', '.join(apart)}).")
    return found


def _status(record: RunRecord) -> str:
    message = "" if record.error is None else f": {record.error.get('type')}: {record.error.get('message')}"
    return one_line(record.status + message)


def _number(value: float | int | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _shown(metric: Metric | None) -> str:
    return ABSENT if metric is None else with_error(metric.value, metric.stderr)
