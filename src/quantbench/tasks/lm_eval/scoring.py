"""Scoring by lm-eval on the live model: its results, our items, and the check that both say the same."""

from __future__ import annotations

import contextlib
import json
import logging
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lm_eval
import pandas as pd
import torch
from lm_eval import evaluator
from lm_eval.utils import handle_non_serializable

from quantbench.core.errors import DataError, ModelError
from quantbench.metrics import metrics
from quantbench.models.handle import ModelHandle
from quantbench.tasks.lm_eval.columns import Column
from quantbench.tasks.lm_eval.library import OTHER_SEED, RANDOM_SEED, Loaded, as_by_itself
from quantbench.tasks.lm_eval.model import LiveModel
from quantbench.tasks.lm_eval.prepared import prompts_hash
from quantbench.tasks.task import Outcome, Show

if TYPE_CHECKING:
    from quantbench.tasks.lm_eval.prepared import LmEvalTestSet

log = logging.getLogger("quantbench")

TOLERANCE = 1e-6
"""Relative: how far a metric of ours may be from the number that lm-eval reports."""

Samples = dict[str, list[dict[str, Any]]]
"""Subtask -> what lm-eval logs of each document and filter."""


def score(test: LmEvalTestSet, handle: ModelHandle, task: str, device: torch.device, show: Show) -> Outcome:
    """Have lm-eval evaluate the model as it stands.

    Raises DataError if it asks something else than when the data were loaded, ModelError if a log-likelihood is not
    finite, and if a metric of ours is not what lm-eval reports.
    """
    options = test.options
    with torch.no_grad(), handle.on_device(device) as model, as_by_itself(), _without_git():
        live = LiveModel(
            handle, model, test.tokenizer, options.batch_size, options.max_length, show, n_requests=test.n_prompts
        )
        results = lm_eval.simple_evaluate(
            model=live,
            tasks=[options.task],
            num_fewshot=options.shots,
            limit=options.limit,
            bootstrap_iters=0,
            task_manager=test.loaded.manager,
            random_seed=RANDOM_SEED,
            numpy_random_seed=OTHER_SEED,
            torch_random_seed=OTHER_SEED,
            fewshot_random_seed=options.seed,
        )
    assert results is not None
    samples: Samples = results.pop("samples")
    _check_prompts(test, task, samples)
    items = _items(test, task, samples, live)
    kept, notes = _check_reported(test, task, items, results)
    notes += _notes(test, live, items)
    for note in notes:
        log.info("  %s: %s", task, note)
    attached = {"lm_eval.json": json.dumps(results, indent=1, default=handle_non_serializable, ensure_ascii=False)}
    attached["notes.json"] = json.dumps({"notes": notes, "data": _data(test.loaded)}, indent=1, ensure_ascii=False)
    if test.generates:
        attached["responses.jsonl"] = "".join(_responses(samples))
    return Outcome(items, attached, tuple(kept))


@contextlib.contextmanager
def _without_git() -> Iterator[None]:
    """lm-eval notes the commit of the working folder, whatever lies there, and git complains if nothing of its does."""
    asked = evaluator.get_git_commit_hash
    evaluator.get_git_commit_hash = lambda: None
    try:
        yield
    finally:
        evaluator.get_git_commit_hash = asked


def _first(samples: list[dict[str, Any]], filter: str | None = None) -> list[dict[str, Any]]:
    """What is logged for one filter: the given one, or the first."""
    wanted = samples[0]["filter"] if filter is None else filter
    return [sample for sample in samples if sample["filter"] == wanted]


def _check_prompts(test: LmEvalTestSet, task: str, samples: Samples) -> None:
    asked = {name: {one["doc_id"]: one["arguments"] for one in _first(found)} for name, found in samples.items()}
    if prompts_hash(asked) != test.fingerprint:
        raise DataError(
            f"task {task}: lm-eval asked something else than when its data were loaded: {test.options.task} does not "
            "make the same prompts every time, so that no two models could be compared on it"
        )


def _items(test: LmEvalTestSet, task: str, samples: Samples, live: LiveModel) -> pd.DataFrame:
    """One row a document; see docs/add_an_evaluation.md for the columns."""
    rows = []
    for name, found in samples.items():
        kind, columns = test.loaded.tasks[name].OUTPUT_TYPE, test.columns[name].values()
        filters = dict.fromkeys(sample["filter"] for sample in found)
        by_filter = {one: {sample["doc_id"]: sample for sample in _first(found, one)} for one in filters}
        for sample in _first(found):
            number = sample["doc_id"]
            row: dict[str, Any] = {"item": f"{name}/{number}", "document": name}
            row |= _sizes(sample, kind, live.n_tokens[name, number])
            if kind == "loglikelihood" and "word_perplexity" in test.columns[name]:
                row["n_words"] = 1
            for column in columns:
                if column.is_mean:
                    row[column.name] = column.value(by_filter[column.filter][number])
            row["truncated"] = int((name, number) in live.truncated)
            if kind != "generate_until":
                row["log_likelihoods"] = _log_likelihoods(sample, task, row["item"])
                if any(not column.is_mean for column in columns):
                    row["nll"] = -sum(row["log_likelihoods"]) / row["n_tokens"]
            rows.append(row)
    return pd.DataFrame(rows)


def _sizes(sample: dict[str, Any], kind: str, n_tokens: int) -> dict[str, int]:
    """Tokens and bytes that are predicted: of all choices, of the text, or of what was generated."""
    if kind == "generate_until":
        return {"n_tokens": n_tokens, "n_bytes": sum(len(_bytes(text)) for one in sample["resps"] for text in one)}
    n_bytes = sum(len(_bytes(str(args[-1]))) for args in sample["arguments"])
    if kind != "loglikelihood_rolling":
        return {"n_tokens": n_tokens, "n_bytes": n_bytes}
    # lm-eval counts the words and bytes of the text before its own clean-up, and divides by these.
    words, given = sample.get("word_perplexity"), sample.get("bits_per_byte")
    sizes = {"n_tokens": n_tokens, "n_bytes": int(given[1]) if isinstance(given, tuple) else n_bytes}
    return sizes | ({"n_words": int(words[1])} if isinstance(words, tuple) else {})


def _bytes(text: Any) -> bytes:
    return str(text).encode("utf-8", "surrogatepass")


def _log_likelihoods(sample: dict[str, Any], task: str, item: str) -> list[float]:
    """In nats, one for each request of the document, summed over its tokens."""
    answers = [one[0] for one in sample["resps"]]
    values = [float(answer[0] if isinstance(answer, tuple | list) else answer) for answer in answers]
    if not all(map(math.isfinite, values)):
        raise ModelError(
            f"task {task}, item {item}: a log-likelihood is not finite, because the model's outputs overflowed. "
            "Quantization to few bits can break a model like this: use more bits; or, if it happens in full precision, "
            "another model.dtype (float16 overflows first)."
        )
    return values


# The check against lm-eval's own numbers


def _check_reported(
    test: LmEvalTestSet, task: str, items: pd.DataFrame, results: Mapping[str, Any]
) -> tuple[list[str], list[str]]:
    """The metrics that the items give, and what to say of the others."""
    kept, notes = [], []
    for column in next(iter(test.columns.values())).values():
        if column.is_mean and items[column.name].isna().any():
            n = int(items[column.name].isna().sum())
            notes.append(f"{column.name} is left out: {n} documents have no value for it")
            items.drop(columns=column.name, inplace=True)
            continue
        name = _group_metric(test, column, items)
        if name is None:
            notes.append(
                f"{column.name} of the group is left out: lm-eval takes a mean over subtasks, see the attachment"
            )
            continue
        for subtask, columns in test.columns.items():
            own = items[items["document"] == subtask]
            _compare(columns[column.name], column.name, own, results["results"][subtask], f"task {task}, {subtask}")
        if test.options.task in test.loaded.groups:
            _compare(column, name, items, results["results"][test.options.task], f"task {task}")
        kept.append(name)
    if not kept:
        raise ModelError(f"task {task}: no metric of lm-eval can be computed from its items: {'; '.join(notes)}")
    return kept, notes


def _group_metric(test: LmEvalTestSet, column: Column, items: pd.DataFrame) -> str | None:
    """The metric's name over all subtasks: a macro mean where subtasks count alike in lm-eval but differ in size."""
    group = test.loaded.groups.get(test.options.task)
    rules = {} if group is None else {rule.metric: rule for rule in group.aggregate_metric_list or []}
    sizes = set(items.groupby("document").size())
    if column.metric not in rules or rules[column.metric].weight_by_size or len(sizes) == 1:
        return column.name
    return f"macro_{column.name}" if column.name in metrics.MACRO else None


def _compare(column: Column, name: str, items: pd.DataFrame, reported: Mapping[str, Any], place: str) -> None:
    if column.derived or column.key not in reported:  # of a group without an aggregate, lm-eval reports nothing
        return
    ours, theirs = metrics.measure(name, items).value, float(reported[column.key])
    if not math.isclose(ours, theirs, rel_tol=TOLERANCE, abs_tol=TOLERANCE):
        raise ModelError(
            f"{place}: {name} of the items is {ours:.9g}, but lm-eval reports {theirs:.9g}: the items cannot be trusted"
        )


# What goes beside the score


def _notes(test: LmEvalTestSet, live: LiveModel, items: pd.DataFrame) -> list[str]:
    notes = []
    if n := int(items["truncated"].sum()):
        notes.append(
            f"{n} of {len(items)} documents have prompts longer than {live.max_length} tokens, whose beginning was cut"
        )
    unlike = [
        name for name, one in test.protocol_values["subtasks"].items() if one["shots_from"].startswith("the tested")
    ]
    if unlike:
        notes.append(f"worked examples come from the tested split, the question itself left out: {', '.join(unlike)}")
    if test.generates and live.whole_sequences:
        notes.append("generated without a cache, since the quantized cache is computed over whole sequences")
    reported = {metric for task in test.loaded.tasks.values() for metric in task.aggregation()}
    kept = {column.metric for columns in test.columns.values() for column in columns.values() if not column.derived}
    if rest := sorted(reported - kept):
        notes.append(f"only in the attachment, since they are no means over items: {', '.join(rest)}")
    return notes


def _data(loaded: Loaded) -> dict[str, Any]:
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


def _responses(samples: Samples) -> Iterable[str]:
    for name, found in samples.items():
        for one in _first(found):
            line = {"item": f"{name}/{one['doc_id']}", "responses": [text for texts in one["resps"] for text in texts]}
            yield json.dumps(line, ensure_ascii=False) + "\n"
