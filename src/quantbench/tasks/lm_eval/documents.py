"""What is wrong with single documents of a task of lm-eval: found before a model is loaded, by task and number."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any

from quantbench.core.errors import DataError, ModelError
from quantbench.core.progress import counted

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def failing(error: Exception, name: str, doing: str) -> DataError:
    """The message for what a task's templates or code raise: task, document as far as it can be told, and cause."""
    number = _number(error.__traceback__)
    where = "" if number is None else f", document {number}"
    cause = error.__cause__
    said = " ".join(str(error).split()) + (f" ({type(cause).__name__}: {cause})" if cause is not None else "")
    return DataError(f"eval task {name}{where}: lm-eval cannot {doing}: {type(error).__name__}: {said}")


def _number(trace: TracebackType | None) -> int | None:
    """The number of the document that lm-eval was at; of those it looks at when a task is made, the first."""
    found: int | None = None
    while trace is not None:
        frame = trace.tb_frame
        if "lm_eval" in frame.f_code.co_filename:
            number = frame.f_locals.get("doc_id_true", frame.f_locals.get("doc_id"))
            if isinstance(number, int):
                found = number
            elif found is None and "test_doc" in frame.f_locals:
                found = 0
        trace = trace.tb_next
    return found


def check_choices(name: str, task: Any, limit: int | None) -> list[str]:
    """What to note of a task of multiple choice: documents whose right answer is none of their choices.

    lm-eval counts them as wrong for every model. Raises DataError for a document without choices, and where no document
    has its answer among them: then nothing is measured.
    """
    if task.OUTPUT_TYPE != "multiple_choice" or not hasattr(task, "multiple_input"):  # classes of their own have no say
        return []
    lost, n = [], 0
    for number, document in _documents(task, limit):
        try:
            choices = task.doc_to_choice(document)
            gold = task.doc_to_text(document) if task.multiple_input else task.doc_to_target(document)
        except Exception as error:  # templates and code of each task
            raise failing(error, f"{name}, document {number}", "read its choices") from error
        if not choices:
            raise DataError(f"eval task {name}, document {number}: it has no choices: {_brief(document)}")
        n += 1
        if not all(_among(one, choices) for one in (gold if isinstance(gold, list) else [gold])):
            lost.append((number, gold, choices))
    if not lost:
        return []
    number, gold, choices = lost[0]
    first = f"document {number}: {gold!r} is none of {_brief(choices)}"
    if len(lost) == n:
        raise DataError(f"eval task {name}: the right answer is among the choices of no document; {first}")
    return [f"{name}: {counted(len(lost), 'document')} of {n} have no right answer, and count as wrong; {first}"]


def _among(gold: Any, choices: Any) -> bool:
    if isinstance(gold, int):
        return 0 <= gold < len(choices)
    return gold in choices if isinstance(gold, str) else True


def _documents(task: Any, limit: int | None) -> Iterator[tuple[int, Any]]:
    found: Iterator[tuple[int, Any]] = task.doc_iterator(rank=0, limit=limit, world_size=1)
    return found


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


def check_tokenizer(name: str, tokenizer: PreTrainedTokenizerBase, generates: bool) -> None:
    """Raise ModelError if the tokenizer lacks a special token that lm-eval puts before, between or behind prompts."""
    has = {key for key in ("bos", "eos", "pad", "unk") if getattr(tokenizer, f"{key}_token_id") is not None}
    needs = [
        (generates and "eos" not in has, "an end-of-text token (eos_token), at which an answer ends"),
        (not has & {"bos", "eos"}, "a token that begins or ends a text (bos_token or eos_token)"),
        (not has & {"pad", "unk", "eos"}, "a token to pad prompts with (pad_token, unk_token or eos_token)"),
    ]
    lacking = [what for lacks, what in needs if lacks]
    if lacking:
        raise ModelError(
            f"eval task {name}: lm-eval needs {lacking[0]}, and the model's tokenizer has none: name one in its "
            "tokenizer_config.json"
        )
