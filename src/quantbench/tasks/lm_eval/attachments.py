"""What is kept beside a score of lm-eval: notes, where the data come from, what was generated."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from quantbench.tasks.lm_eval.items import Samples, of_filter
from quantbench.tasks.lm_eval.loading import Loaded
from quantbench.tasks.lm_eval.model import LiveModel
from quantbench.tasks.lm_eval.prepared import Prepared


def notes_of(prepared: Prepared, live: LiveModel, items: pd.DataFrame) -> list[str]:
    """What a reader of the score should know."""
    notes = list(prepared.notes)
    if n := int(items["truncated"].sum()):
        notes.append(
            f"{n} of {len(items)} documents have prompts longer than {live.max_length} tokens, whose beginning was cut"
        )
    if n := int(items["unfinished"].sum()) if "unfinished" in items else 0:
        notes.append(f"{n} of {len(items)} answers were cut at {prepared.generates} tokens")
    unlike = [
        name for name, one in prepared.protocol_values["subtasks"].items() if one["shots_from"].startswith("the tested")
    ]
    if unlike:
        notes.append(f"worked examples come from the tested split, the question itself left out: {', '.join(unlike)}")
    if prepared.generates and live.whole_sequences:
        notes.append("generated without a cache, since the quantized cache is computed over whole sequences")
    reported = {metric for task in prepared.loaded.tasks.values() for metric in task.aggregation()}
    kept = {column.metric for columns in prepared.columns.values() for column in columns.values() if not column.derived}
    if rest := sorted(reported - kept):
        notes.append(f"only in the attachment, since they are no means over items: {', '.join(rest)}")
    return notes


def data_of(loaded: Loaded) -> dict[str, Any]:
    """Where each subtask's data come from, and their revision as found: the folder of a hub download is named by it."""
    found = {}
    for name, task in loaded.tasks.items():
        files = [file["filename"] for split in _splits(task) for file in getattr(split, "cache_files", [])]
        commit = Path(files[0]).parent.name if files else ""
        known = len(commit) == 40 and set(commit) <= set("0123456789abcdef")
        found[name] = {
            "path": task.DATASET_PATH,
            "config": task.DATASET_NAME,
            "revision": commit if known else "unverified",
        }
    return found


def _splits(task: Any) -> list[Any]:
    data = getattr(task, "dataset", None)
    return list(data.values()) if isinstance(data, Mapping) else []


def responses_of(samples: Samples) -> Iterable[str]:
    """Lines of JSON: an item and all that was generated for it."""
    for name, found in samples.items():
        for one in of_filter(found):
            line = {"item": f"{name}/{one['doc_id']}", "responses": [text for texts in one["resps"] for text in texts]}
            yield json.dumps(line, ensure_ascii=False) + "\n"
