"""An lm-eval task for one tokenizer: its prompts as they will be asked, what fixes a score on them, and the scoring."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from quantbench.core.errors import ConfigError, DataError
from quantbench.models.handle import ModelHandle
from quantbench.tasks.reference import Reference
from quantbench.tasks.task import Outcome, Show

if TYPE_CHECKING:
    from quantbench.tasks.lm_eval.columns import Column
    from quantbench.tasks.lm_eval.library import Loaded
    from quantbench.tasks.lm_eval.task import LmEvalTask

log = logging.getLogger("quantbench")

SAMPLED = 256
"""Prompts whose tokens are counted to judge how long a test takes."""


@dataclass(frozen=True, eq=False)
class LmEvalTestSet:
    """See TestSet.

    loaded      the subtasks and groups
    columns     subtask -> name -> a metric that all subtasks have
    documents   each document as it is asked without worked examples, with the first of its answers
    prompts     some of the prompts with their worked examples; n_prompts: how many there are in all
    generates   the most tokens a document's answer may take; 0 if nothing is generated
    """

    options: LmEvalTask
    loaded: Loaded
    tokenizer: PreTrainedTokenizerBase = field(repr=False)
    columns: dict[str, dict[str, Column]]
    documents: tuple[str, ...] = field(repr=False)
    prompts: tuple[str, ...] = field(repr=False)
    n_prompts: int
    generates: int
    fingerprint: str
    protocol_values: dict[str, Any]

    @property
    def metrics(self) -> tuple[str, ...]:
        """Those of lm-eval that per-item values give, and means over subtasks where lm-eval takes such."""
        return tuple(next(iter(self.columns.values())))

    @property
    def uses_reference(self) -> bool:
        """Nothing is compared with the full-precision model item by item but the outcomes."""
        return False

    @cached_property
    def token_rows(self) -> Sequence[Tensor]:
        """The documents."""
        rows = self.tokenizer(list(self.documents), add_special_tokens=False, verbose=False)["input_ids"]
        return [torch.tensor(row, dtype=torch.int64) for row in rows]

    @cached_property
    def n_positions(self) -> int:
        """Tokens of all prompts, judged by some of them; and of what is generated, at the most."""
        rows = self.tokenizer(list(self.prompts), add_special_tokens=False, verbose=False)["input_ids"]
        mean = sum(map(len, rows)) / len(rows)
        return int((mean + self.generates) * self.n_prompts)

    def check_length(self, limit: int | None, task: str) -> None:
        """Raise ConfigError if the model takes too few tokens to generate an answer. Prompts are cut, and counted."""
        given = self.options.max_length
        if given is not None and limit is not None and given > limit:
            raise ConfigError(f"task {task}: max_length={given}, but the model takes at most {limit} tokens")
        length = given or limit
        if length is not None and self.generates >= length:
            raise ConfigError(
                f"task {task} generates up to {self.generates} tokens, but the model takes at most {length}, prompt "
                "included: leave this task out"
            )

    def score(
        self,
        handle: ModelHandle,
        task: str,
        reference: Reference | None,  # noqa: ARG002 - there is none
        device: torch.device,
        show: Show,
    ) -> Outcome:
        """See TestSet. Raises DataError if lm-eval asks something else than when the data were loaded."""
        from quantbench.tasks.lm_eval.scoring import score

        return score(self, handle, task, device, show)


def make(options: LmEvalTask, tokenizer: PreTrainedTokenizerBase, tokenizer_fingerprint: str) -> LmEvalTestSet:
    """The test set of a task. Raises as LmEvalTask.load."""
    from quantbench.tasks.lm_eval import library
    from quantbench.tasks.lm_eval.columns import shared

    log.info("loading task %s", options.task)
    with library.as_by_itself():
        loaded = library.load(options.task, options.include_path)
        columns = shared(loaded.tasks)
        if not any(columns.values()):
            raise ConfigError(
                f"eval task {options.task}: its subtasks have no metric in common that is a mean over items: name them "
                f"one by one ({', '.join(list(loaded.tasks)[:12])})"
            )
        places = {name: _set_shots(name, task, options) for name, task in loaded.tasks.items()}
        requests = {name: _requests(name, task, options) for name, task in loaded.tasks.items()}
        documents = [text for name, task in loaded.tasks.items() for text in _documents(task, options, requests[name])]
    prompts = ["".join(a for a in one.args if isinstance(a, str)) for asked in requests.values() for one in asked]
    fingerprint = prompts_hash({name: _arguments(asked) for name, asked in requests.items()})
    n_documents = {name: len({one.doc_id for one in asked}) for name, asked in requests.items()}
    return LmEvalTestSet(
        options=options,
        loaded=loaded,
        tokenizer=tokenizer,
        columns=columns,
        documents=tuple(documents),
        prompts=tuple(prompts[:: max(1, len(prompts) // SAMPLED)]),
        n_prompts=len(prompts),
        generates=max(_room(task) for task in loaded.tasks.values()),
        fingerprint=fingerprint,
        protocol_values=_protocol(options, loaded, places, n_documents)
        | {"prompts": fingerprint, "tokenizer": tokenizer_fingerprint},
    )


def _protocol(
    options: LmEvalTask, loaded: Loaded, places: Mapping[str, str], n_documents: Mapping[str, int]
) -> dict[str, Any]:
    """All that fixes a score but the prompts themselves. Configurations stand in the attachment; here is their hash."""
    from importlib.metadata import version

    return {
        "kind": "lm-eval task",
        "lm_eval": version("lm_eval"),
        "task": options.task,
        "seed": options.seed,
        "limit": options.limit,
        "max_length": options.max_length,
        "subtasks": {
            name: {
                "version": str(task.VERSION),
                "dataset": [task.DATASET_PATH, task.DATASET_NAME],
                "shots": task.get_config("num_fewshot"),
                "shots_from": places[name],
                "description": str(task.get_config("description") or ""),
                "documents": n_documents[name],
                "config": _config_hash(task),
            }
            for name, task in loaded.tasks.items()
        },
    }


def _config_hash(task: Any) -> str:
    """sha256 of the resolved configuration, functions by their source, without the places of files.

    Files of data count by the hash of the prompts.
    """
    config = {k: v for k, v in task.dump_config().items() if k not in {"dataset_kwargs", "metadata"}}
    if isinstance(task.dump_config().get("metadata"), dict):
        config["metadata"] = {k: v for k, v in task.dump_config()["metadata"].items() if k != "config_source"}
    return hashlib.sha256(json.dumps(config, sort_keys=True, default=_plain).encode()).hexdigest()


def _plain(value: Any) -> str:
    """A value of a configuration that JSON does not know; functions without their address."""
    return f"{value.__module__}.{value.__qualname__}" if hasattr(value, "__qualname__") else type(value).__qualname__


def _set_shots(name: str, task: Any, options: LmEvalTask) -> str:
    """Set the number of worked examples as lm-eval does; where they come from. Raises ConfigError or DataError."""
    own, asked = task.get_config("num_fewshot"), options.shots
    if own == 0 and asked:
        raise ConfigError(
            f"eval task {options.task}: shots={asked}, but lm-eval defines {name} without worked examples; "
            "use shots=0, or leave this task out"
        )
    shots = own if asked is None or own == 0 else asked
    task.set_config(key="num_fewshot", value=shots or 0)
    task.set_fewshot_seed(seed=options.seed)
    if not shots:
        return "none"
    pool = getattr(getattr(task, "sampler", None), "df", None)
    same = _shots_from_test(task)
    there = None if pool is None else len(pool) - same
    if there is not None and there < shots:
        raise DataError(
            f"eval task {options.task}: {shots} worked examples are asked for, but {name} has {there} "
            f"{'besides the question itself' if same else 'to draw from'}; use shots={max(there, 0)} or less"
        )
    return "the tested split, the question itself left out" if same else "another split than the tested one"


def _shots_from_test(task: Any) -> bool:
    """Whether worked examples are drawn from the documents that are tested, since the task has no others."""
    config = task.config
    tested = config.test_split or config.validation_split
    own = getattr(getattr(task, "fewshot_cfg", None), "split", None) or config.fewshot_split
    if own is None and getattr(getattr(task, "fewshot_cfg", None), "samples", None) is not None:
        return False
    return bool((own or config.training_split or config.validation_split or config.test_split) == tested)


def _requests(name: str, task: Any, options: LmEvalTask) -> list[Any]:
    """All that the task asks a model, as lm-eval asks it."""
    try:
        task.build_all_requests(limit=options.limit, rank=0, world_size=1)
    except Exception as error:  # templates and code of each task
        raise DataError(f"eval task {options.task}: lm-eval cannot render the prompts of {name}: {error!r}") from error
    requests: list[Any] = task.instances
    return requests


def _documents(task: Any, options: LmEvalTask, requests: list[Any]) -> Iterable[str]:
    """Each document without worked examples, which are no part of the test."""
    shots = task.get_config("num_fewshot")
    if shots:
        task.set_config(key="num_fewshot", value=0)
        requests = _requests(task.task_name, task, options)
        task.set_config(key="num_fewshot", value=shots)
    seen = set()
    for one in requests:
        if one.doc_id not in seen:
            seen.add(one.doc_id)
            yield "".join(part for part in one.args if isinstance(part, str))


def _arguments(requests: Iterable[Any]) -> dict[int, list[tuple[Any, ...]]]:
    """The requests of each document, in their order."""
    found: dict[int, list[Any]] = {}
    for one in requests:
        found.setdefault(one.doc_id, []).append(one)
    return {number: [one.args for one in sorted(asked, key=lambda r: r.idx)] for number, asked in found.items()}


def prompts_hash(arguments: Mapping[str, Mapping[int, Iterable[Any]]]) -> str:
    """sha256 of all that is asked: subtask -> document -> requests."""
    found = hashlib.sha256()
    for name in sorted(arguments):
        for number in sorted(arguments[name]):
            line = [name, number, [list(args) for args in arguments[name][number]]]
            found.update(json.dumps(line, sort_keys=True, default=str).encode() + b"\n")
    return found.hexdigest()


def _room(task: Any) -> int:
    if task.OUTPUT_TYPE != "generate_until":
        return 0
    from lm_eval.models.utils import normalize_gen_kwargs

    return int(normalize_gen_kwargs(dict(task.get_config("generation_kwargs") or {}), 256)["max_gen_toks"])
