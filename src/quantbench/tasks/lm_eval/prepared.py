"""An lm-eval task for one tokenizer: its prompts as they will be asked, and what fixes a score on them."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from quantbench.core.errors import ConfigError
from quantbench.models.tokenizer import chat_fingerprint
from quantbench.tasks.lm_eval.clusters import CLUSTERS
from quantbench.tasks.lm_eval.columns import Column, shared
from quantbench.tasks.lm_eval.documents import check_choices, check_tokenizer
from quantbench.tasks.lm_eval.library import as_by_itself
from quantbench.tasks.lm_eval.loading import Loaded, load
from quantbench.tasks.lm_eval.options import LmEvalOptions
from quantbench.tasks.lm_eval.requests import (
    arguments_of,
    contents_of,
    documents_of,
    prompts_hash,
    requests_of,
    room_of,
)
from quantbench.tasks.lm_eval.shots import set_shots

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger("quantbench")

GENERATION = "settings of the task; of the model's generation_config.json its special tokens only"
"""What decides how text is generated, in the protocol of a task that has text generated."""

SAMPLED = 256
"""Prompts whose tokens are counted to judge how long a test takes."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """All that scoring needs besides a model.

    loaded      the subtasks and groups
    columns     subtask -> name -> a metric that all subtasks have
    documents   each document as it is asked without worked examples, with the first of its answers
    contents    what documents are about, without template and answers
    prompts     some of the prompts with their worked examples; n_prompts: how many there are in all
    generates   the most tokens a document's answer may take; 0 if nothing is generated
    fingerprint sha256 of all that is asked
    protocol_values  everything that fixes a score, plain values
    notes       what a reader of any score on it should know
    """

    options: LmEvalOptions
    loaded: Loaded
    tokenizer: PreTrainedTokenizerBase = field(repr=False)
    columns: dict[str, dict[str, Column]]
    documents: tuple[str, ...] = field(repr=False)
    contents: tuple[str, ...] = field(repr=False)
    prompts: tuple[str, ...] = field(repr=False)
    n_prompts: int
    generates: int
    fingerprint: str
    protocol_values: dict[str, Any]
    notes: tuple[str, ...]


def make(options: LmEvalOptions, tokenizer: PreTrainedTokenizerBase, tokenizer_fingerprint: str) -> Prepared:
    """A task with its data, ready to be asked. Raises as LmEvalTask.load."""
    log.info("loading task %s", options.task)
    with as_by_itself():
        loaded = load(options.task, options.include_path)
        columns = shared(loaded.tasks)
        if not any(columns.values()):
            raise ConfigError(
                f"eval task {options.task}: its subtasks have no metric in common that is a mean over items: name them "
                f"one by one ({', '.join(list(loaded.tasks)[:12])})"
            )
        sources = {name: set_shots(name, task, options) for name, task in loaded.tasks.items()}
        notes = [note for name, task in loaded.tasks.items() for note in check_choices(name, task, options.limit)]
        requests = {name: requests_of(name, task, options, tokenizer) for name, task in loaded.tasks.items()}
        documents = [
            text
            for name, task in loaded.tasks.items()
            for text in documents_of(task, options, requests[name], tokenizer)
        ]
    generates = max(room_of(task) for task in loaded.tasks.values())
    check_tokenizer(options.task, tokenizer, generates > 0)
    for note in notes:
        log.warning("%s", note)
    prompts = ["".join(a for a in one.args if isinstance(a, str)) for asked in requests.values() for one in asked]
    fingerprint = prompts_hash({name: arguments_of(asked) for name, asked in requests.items()})
    n_documents = {name: len({one.doc_id for one in asked}) for name, asked in requests.items()}
    return Prepared(
        options=options,
        loaded=loaded,
        tokenizer=tokenizer,
        columns=columns,
        documents=tuple(documents),
        contents=tuple(text for asked in requests.values() for text in contents_of(asked)),
        prompts=tuple(prompts[:: max(1, len(prompts) // SAMPLED)]),
        n_prompts=len(prompts),
        generates=generates,
        fingerprint=fingerprint,
        protocol_values=_protocol(options, loaded, sources, n_documents)
        | {"prompts": fingerprint, "tokenizer": tokenizer_fingerprint}
        | ({"chat_template": chat_fingerprint(tokenizer)} if options.chat else {})
        | ({"generation": GENERATION} if generates else {}),
        notes=tuple(notes),
    )


def _protocol(
    options: LmEvalOptions, loaded: Loaded, sources: Mapping[str, str], n_documents: Mapping[str, int]
) -> dict[str, Any]:
    """All that fixes a score but the prompts themselves. Configurations stand in the attachment; here is their hash."""
    return {
        "kind": "lm-eval task",
        "lm_eval": version("lm_eval"),
        "task": options.task,
        "seed": options.seed,
        "limit": options.limit,
        "max_length": options.max_length,
        "clusters": CLUSTERS,
        "subtasks": {
            name: {
                "version": str(task.VERSION),
                "dataset": [task.DATASET_PATH, task.DATASET_NAME],
                "shots": task.get_config("num_fewshot"),
                "shots_from": sources[name],
                "description": str(task.get_config("description") or ""),
                "documents": n_documents[name],
                "config": _config_hash(task),
            }
            for name, task in loaded.tasks.items()
        },
    }


def _config_hash(task: Any) -> str:
    """sha256 of the resolved configuration, functions by their source, without the paths of files.

    Files of data count by the hash of the prompts.
    """
    config = {k: v for k, v in task.dump_config().items() if k not in {"dataset_kwargs", "metadata"}}
    if isinstance(task.dump_config().get("metadata"), dict):
        config["metadata"] = {k: v for k, v in task.dump_config()["metadata"].items() if k != "config_source"}
    return hashlib.sha256(json.dumps(config, sort_keys=True, default=_plain).encode()).hexdigest()


def _plain(value: Any) -> str:
    """A value of a configuration that JSON does not know; functions without their address."""
    return f"{value.__module__}.{value.__qualname__}" if hasattr(value, "__qualname__") else type(value).__qualname__
