"""Items from what lm-eval logs of each document."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from quantbench.tasks.lm_eval.clusters import cluster_of
from quantbench.tasks.lm_eval.model import LiveModel
from quantbench.tasks.lm_eval.prepared import Prepared
from quantbench.tasks.overflow import overflowed

Samples = dict[str, list[dict[str, Any]]]
"""Subtask -> what lm-eval logs of each document and filter."""


def of_filter(samples: list[dict[str, Any]], filter: str | None = None) -> list[dict[str, Any]]:
    """What is logged for one filter: the given one, or the first."""
    wanted = samples[0]["filter"] if filter is None else filter
    return [sample for sample in samples if sample["filter"] == wanted]


def items_of(prepared: Prepared, task: str, samples: Samples, live: LiveModel) -> pd.DataFrame:
    """One row a document: item "subtask/number", document (the subtask), cluster (`cluster_of`), n_tokens, n_bytes, a
    column for each mean, and truncated; unfinished where text was generated, else log_likelihoods (nats, one for each
    request); nll (mean nats per token) and n_words where a metric is no mean over items.

    Raises ModelError if a log-likelihood is not finite.
    """
    rows = []
    for name, found in samples.items():
        kind, columns = prepared.loaded.tasks[name].OUTPUT_TYPE, prepared.columns[name].values()
        filters = dict.fromkeys(sample["filter"] for sample in found)
        by_filter = {one: {sample["doc_id"]: sample for sample in of_filter(found, one)} for one in filters}
        for sample in of_filter(found):
            number = sample["doc_id"]
            row: dict[str, Any] = {"item": f"{name}/{number}", "document": name}
            row["cluster"] = cluster_of(name, number, sample["doc"])
            row |= _sizes(sample, kind, live.n_tokens[name, number])
            if kind == "loglikelihood" and "word_perplexity" in prepared.columns[name]:
                row["n_words"] = 1
            for column in columns:
                if column.is_mean:
                    row[column.name] = column.value(by_filter[column.filter][number])
            row["truncated"] = int((name, number) in live.truncated)
            if kind == "generate_until":
                row["unfinished"] = int((name, number) in live.unfinished)
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
        raise overflowed(f"task {task}, item {item}", "a log-likelihood")
    return values
