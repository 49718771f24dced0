"""What lies in a packed file (quantbench.store.pack), read and checked."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from quantbench.core.errors import StoreError
from quantbench.store.json_record import JsonRecord
from quantbench.store.layout import Layout
from quantbench.store.manifest import Manifest
from quantbench.store.pack import MEMBER, TOTALS
from quantbench.store.records import Failure, Observed, RunRecord, Score

R = TypeVar("R", bound=JsonRecord)


@dataclass
class Contents:
    """Manifests; records, costs and layers by run; scores with their totals [metrics, clusters]; failures by path."""

    manifests: list[Manifest] = field(default_factory=list)
    records: dict[str, RunRecord] = field(default_factory=dict)
    scores: list[tuple[Score, NDArray[np.float64]]] = field(default_factory=list)
    failures: dict[str, Failure] = field(default_factory=dict)
    costs: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    observed: dict[str, Observed] = field(default_factory=dict)


def contents_of(packed: Mapping[str, bytes], source: str, layout: Layout) -> Contents:
    """What `read_pack` gave, as records; `source` names it in messages.

    Raises SchemaError for records of another schema, and StoreError for damaged ones, for records that do not lie where
    their own names say, for runs without a record, and for totals that are not those of their score.
    """
    found = Contents()
    for name, content in packed.items():
        match, where = MEMBER.fullmatch(name), f"{source}, {name}"
        if match is None:
            raise StoreError(f"{where} does not belong into a file of `quantbench pack`")
        own = name
        if match["sweep"]:
            manifest = _parsed(Manifest, content, where)
            own = _inside(layout, layout.manifest_path(manifest.name))
            found.manifests.append(manifest)
        elif match["record"]:
            record = _parsed(RunRecord, content, where)
            own = f"runs/{record.run_id}/record.json"
            found.records[record.run_id] = record
        elif match["costs"]:
            found.costs[match["run"]] = _costs(content, where)
        elif match["observed"]:
            found.observed[match["run"]] = _parsed(Observed, content, where)
            own = f"runs/{found.observed[match['run']].run_id}/observed.json"
        elif match["kind"] == ".failed.json":
            found.failures[name] = _parsed(Failure, content, where)
        elif match["kind"] == ".json":
            score = _parsed(Score, content, where)
            own = _inside(layout, layout.score_path(score.run_id, score.task, score.protocol))
            found.scores.append((score, _totals(score, packed.get(name.removesuffix(".json") + TOTALS), where)))
        if own != name:
            raise StoreError(f"{where} holds the record of {own}: the file is damaged. Pack the sweep again")
    runs = {match["run"] for name in packed if (match := MEMBER.fullmatch(name)) is not None} - {None}
    if lost := sorted(runs - found.records.keys()):
        raise StoreError(f"{source} has results of runs without a record: {', '.join(lost[:5])}. Pack the sweep again")
    return found


def _inside(layout: Layout, path: Any) -> str:
    return str(path.relative_to(layout.root).as_posix())


def _parsed(kind: type[R], content: bytes, where: str) -> R:
    try:
        return kind.from_json(content.decode("utf-8"), where)
    except UnicodeDecodeError as error:
        raise StoreError(f"{where} is damaged: {error}") from error


def _costs(content: bytes, where: str) -> list[dict[str, Any]]:
    try:
        costs = [json.loads(line) for line in content.decode("utf-8").splitlines()]
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{where} is damaged: {error}") from error
    if not all(isinstance(cost, dict) and "environment" in cost for cost in costs):
        raise StoreError(f"{where} is damaged: a line is no measurement")
    return costs


def _totals(score: Score, content: bytes | None, where: str) -> NDArray[np.float64]:
    if content is None:
        raise StoreError(f"{where}: its totals are missing. Pack the sweep again")
    try:
        array = np.load(io.BytesIO(content), allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise StoreError(f"{where}: its totals are damaged: {error}") from error
    expected = (len(score.metrics), score.n_clusters)
    if not isinstance(array, np.ndarray) or array.dtype != np.float64 or array.shape != expected:
        raise StoreError(f"{where}: its totals are not float64 {list(expected)}, metrics by clusters")
    return array
