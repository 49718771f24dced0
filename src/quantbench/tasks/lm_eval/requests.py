"""What lm-eval asks a model: the requests of a task, and the hash of all of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from quantbench.models.tokenizer import chat_fingerprint, in_chat
from quantbench.tasks.lm_eval.documents import failing
from quantbench.tasks.lm_eval.options import LmEvalOptions

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def requests_of(name: str, task: Any, options: LmEvalOptions, tokenizer: PreTrainedTokenizerBase) -> list[Any]:
    """All that the task asks a model, as lm-eval asks it.

    Raises ConfigError for chat=true and a tokenizer without a chat template.
    """
    chat: dict[str, Any] = {}
    if options.chat:
        chat_fingerprint(tokenizer)  # its error is ours, not one of the task's templates
        chat = {"apply_chat_template": True, "fewshot_as_multiturn": True, "chat_template": partial(in_chat, tokenizer)}
    try:
        task.build_all_requests(limit=options.limit, rank=0, world_size=1, **chat)
    except Exception as error:  # templates and code of each task
        raise failing(
            error, f"{options.task}, {name}" if name != options.task else name, "render its prompts"
        ) from error
    requests: list[Any] = task.instances
    return requests


def documents_of(
    task: Any, options: LmEvalOptions, requests: list[Any], tokenizer: PreTrainedTokenizerBase
) -> Iterable[str]:
    """Each document without worked examples, which are no part of the test."""
    shots = task.get_config("num_fewshot")
    if shots:
        task.set_config(key="num_fewshot", value=0)
        requests = requests_of(task.task_name, task, options, tokenizer)
        task.set_config(key="num_fewshot", value=shots)
    seen = set()
    for one in requests:
        if one.doc_id not in seen:
            seen.add(one.doc_id)
            yield "".join(part for part in one.args if isinstance(part, str))


def contents_of(requests: Iterable[Any]) -> list[str]:
    """What each document is about, without template and answers: the longest text of its fields."""
    documents = {one.doc_id: one.doc for one in requests}
    found = []
    for document in documents.values():
        texts = [value for value in document.values() if isinstance(value, str)] if isinstance(document, dict) else []
        found += [" ".join(max(texts, key=len).split())] if texts else []
    return found


def arguments_of(requests: Iterable[Any]) -> dict[int, list[tuple[Any, ...]]]:
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


def room_of(task: Any) -> int:
    """The most tokens an answer may take; 0 if nothing is generated."""
    if task.OUTPUT_TYPE != "generate_until":
        return 0
    from lm_eval.models.utils import normalize_gen_kwargs

    return int(normalize_gen_kwargs(dict(task.get_config("generation_kwargs") or {}), 256)["max_gen_toks"])
