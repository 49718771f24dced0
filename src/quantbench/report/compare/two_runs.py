"""Two runs explained: the settings in which they differ, their scores, and what a paired test says of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from quantbench.core import origin
from quantbench.core.errors import StoreError
from quantbench.metrics import metrics as known_metrics
from quantbench.metrics.metric import Metric
from quantbench.report.alike import Run, differing, flat, labels
from quantbench.report.columns import DATA_FREE, ResultRow
from quantbench.report.compare.groups import Arm
from quantbench.report.compare.overview import spent
from quantbench.report.compare.pairing import compare_sides
from quantbench.report.compare.rows import Compared
from quantbench.report.compare.scores import Scores
from quantbench.report.digits import with_error
from quantbench.report.sweep_runs import one_line
from quantbench.report.table import Table, TableCell
from quantbench.store.records import RunRecord, Score
from quantbench.store.store import Store

ABSENT = "–"


@dataclass(frozen=True)
class Pair:
    """Two runs of one model: their records, scores and arms of one run each, and why some scores are not compared."""

    records: tuple[RunRecord, RunRecord]
    scores: tuple[list[Score], list[Score]]
    arms: tuple[Arm, Arm]
    compared: list[Compared]
    reasons: list[str]


def find_run(store: Store, beginning: str) -> str:
    """The id of the run that begins like that. Raises StoreError if it is not one."""
    known = store.run_ids()
    found = [beginning] if beginning in known else [one for one in known if beginning and one.startswith(beginning)]
    if len(found) != 1:
        problem = f"{len(found)} runs begin like that: {', '.join(found[:5])}" if found else "no such run"
        raise StoreError(f"{beginning}: {problem}, in {store.root}; {len(known)} runs are stored")
    return found[0]


def pair_of(store: Store, first: str, second: str) -> Pair:
    """The runs of two ids, compared in every metric that both have under one protocol.

    Raises StoreError for one run twice, and for runs of two models.
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
    runs = [Run(record.run_id, _rows(record, own), record.config) for record, own in zip(records, scores, strict=True)]
    (recipe, calib), (other, other_calib) = labels(runs)
    arms = Arm(recipe, calib, (runs[0],)), Arm(other, other_calib, (runs[1],))
    reader, compared = Scores(store), []
    for row in runs[0].rows:
        column = row["task"], row["protocol"], row["metric"] or ""
        ours, theirs = reader.side(arms[0], column), reader.side(arms[1], column)
        if ours is not None and theirs is not None:
            compared.append(Compared(arms[0], arms[1], row, compare_sides(ours, theirs)))
    return Pair(records, scores, arms, compared, _reasons(records, scores))


def settings_table(store: Store, pair: Pair) -> Table:
    """What the runs are, and every setting of their identities that differs, by its dotted key."""
    told: list[tuple[str, ...]] = [
        ("status", *(_status(record) for record in pair.records)),
        ("recipe", *(arm.recipe for arm in pair.arms)),
        ("calibrated on", *(arm.calib for arm in pair.arms)),
        ("calibration tokens", *(_number((one.calibration or {}).get("n_tokens"), ",d") for one in pair.records)),
        ("effective bits", *(_number(one.effective_bits or one.bits_model, ".4g") for one in pair.records)),
        ("CPU s", *(spent(store, arm.first)[0].value for arm in pair.arms)),
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


def scores_table(pair: Pair, chosen: Sequence[str]) -> Table:
    """The scores side by side, those of one run alone included. chosen: metrics."""
    values = [{(s.task, s.protocol, m.name): m for s in own for m in s.metrics} for own in pair.scores]
    keys = [key for key in dict.fromkeys([*values[0], *values[1]]) if key[2] in chosen]
    texts = [[f"{key[0]} [{key[1][:8]}]", key[2], *(_shown(one.get(key)) for one in values)] for key in keys]
    header = ["test", "metric", *(record.run_id for record in pair.records)]
    cells = [[TableCell(text) for text in row] for row in texts]
    caption = ["Values ± standard errors over clusters of test items; in brackets the protocol."]
    return Table("scores", "Scores", header, cells, caption, list(pair.reasons))


def metrics_of(pair: Pair) -> list[str]:
    """All metrics that one of the two has."""
    return list(dict.fromkeys(metric.name for own in pair.scores for score in own for metric in score.metrics))


def _record(store: Store, run_id: str) -> RunRecord:
    record = store.load_run(run_id)
    assert record is not None
    return record


def _rows(record: RunRecord, scores: Sequence[Score]) -> list[ResultRow]:
    """What results.csv says of a run, and of its scores; one row for a run without scores."""
    calib = " + ".join(one.name for one in record.origins) or (DATA_FREE if record.calibration is None else "unknown")
    common: ResultRow = {
        "sweep": "",
        "model": record.choices.get("model", ""),
        "calib": calib,
        "calib_variant": "",
        "calib_distribution": calib,
        "quantizer": record.choices.get("quantizer", ""),
        "variant": "",
        "scale": record.choices.get("scale", ""),
        "run_id": record.run_id,
        "status": record.status,
        "full_precision": record.effective_bits is None and not record.layers,
        "data_free": record.calibration is None,
        "effective_bits": record.effective_bits if record.effective_bits is not None else record.bits_model,
        "calib_tokens": (record.calibration or {}).get("n_tokens"),
    }
    rows = [common | _row(record, score, metric) for score in scores for metric in score.metrics]
    return rows or [common]


def _row(record: RunRecord, score: Score, metric: Metric) -> ResultRow:
    return {
        "task": score.task,
        "protocol": score.protocol,
        "distribution": score.origin.name,
        "family": score.origin.family,
        "relation": origin.relation(tuple(record.origins), score.origin),
        "metric": metric.name,
        "unit": known_metrics.unit(metric.name),
        "higher_is_better": metric.higher_is_better,
        "value": metric.value,
        "n_tokens": score.n_tokens,
    }


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
