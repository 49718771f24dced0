"""What is wrong with documents of a task, or settings of a model that would act on it: told, and never silent."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GenerationConfig, PreTrainedTokenizerFast

from lm_eval_tasks import TEST, choice_task, long_handle, save, write_tasks
from quantbench.core.errors import DataError, ModelError
from quantbench.tasks.lm_eval.item_set import LmEvalTestSet
from quantbench.tasks.lm_eval.task import LmEvalTask
from tiny import tiny_tokenizer

CPU = torch.device("cpu")


def load(folder: Path, name: str, tokenizer: Any = None) -> LmEvalTestSet:
    task = LmEvalTask(task=name, include_path=folder, batch_size=3)
    return task.load(tokenizer or tiny_tokenizer(), "tokenizer")


def rewrite(folder: Path, change: Callable[[int, dict[str, Any]], None]) -> None:
    file = folder / "own_choice_test.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for number, row in enumerate(rows):
        change(number, row)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize("gold", [7, -1])
def test_a_right_answer_that_is_no_choice_is_noted_with_its_document(
    gold: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path, choice_task(tmp_path, "own_choice"))
    rewrite(tmp_path, lambda number, row: row.update(gold=gold) if number == 5 else None)
    test = load(tmp_path, "own_choice")
    told = f"own_choice: 1 document of {TEST} have no right answer, and count as wrong; document 5: {gold} is none of"
    assert told in caplog.text
    outcome = test.score(long_handle(), "task", None, CPU, lambda _done, _all: None)
    assert any(note.startswith(told) for note in json.loads(outcome.attachments["notes.json"])["notes"])
    assert outcome.items["acc"][5] == 0


def test_a_task_without_any_right_answer_is_refused(tmp_path: Path) -> None:
    save(tmp_path, choice_task(tmp_path, "own_choice"))
    rewrite(tmp_path, lambda _, row: row.update(gold=-1))
    with pytest.raises(
        DataError, match=r"own_choice: the right answer is among the choices of no document; document 0"
    ):
        load(tmp_path, "own_choice")


@pytest.mark.parametrize(
    ("options", "row", "told"),
    [
        ({}, {"options": []}, r"own_choice, document 4: it has no choices"),
        (
            {"doc_to_choice": "{{options[0].nothing.at_all}}"},
            {},
            r"own_choice, document 0: lm-eval cannot load it: Und",
        ),
        ({"doc_to_text": "{{question.upper(}}"}, {}, r"own_choice.*: lm-eval cannot load it: TemplateSyntaxError"),
        (
            {"doc_to_text": "{{question + 1 if question == 'bad' else question}}"},
            {"question": "bad"},
            "document 4.*TypeE",
        ),
    ],
)
def test_what_fails_in_a_document_names_it_and_advises_no_download(
    options: dict[str, Any], row: dict[str, Any], told: str, tmp_path: Path
) -> None:
    save(tmp_path, choice_task(tmp_path, "own_choice", **options))
    rewrite(tmp_path, lambda number, one: one.update(row if number == 4 else {}))
    with pytest.raises(DataError, match=told) as error:
        load(tmp_path, "own_choice")
    assert "prepare" not in str(error.value)


@pytest.mark.parametrize(
    "acting",
    [{"repetition_penalty": 5.0}, {"num_beams": 3}, {"max_new_tokens": 1}, {"suppress_tokens": list(range(100))}],
    ids=lambda acting: next(iter(acting)),
)
def test_generation_settings_of_the_model_do_not_act_on_a_task(acting: dict[str, Any], tmp_path: Path) -> None:
    test = load(write_tasks(tmp_path), "own_text")
    assert "generation" in test.protocol_values
    assert "generation" not in load(tmp_path, "own_choice").protocol_values
    found = []
    for settings in ({}, acting):
        handle = long_handle()
        own = GenerationConfig(bos_token_id=0, eos_token_id=1, **settings)  # type: ignore[no-untyped-call]
        handle.model.generation_config = own
        outcome = test.score(handle, "task", None, CPU, lambda _done, _all: None)
        found.append(outcome.attachments["responses.jsonl"])
        assert handle.model.generation_config is own
    assert found[0] == found[1]


def without(*special: str) -> PreTrainedTokenizerFast:
    tokenizer = tiny_tokenizer(add_bos=False)
    for name in special:
        setattr(tokenizer, f"{name}_token", None)
    return tokenizer


def test_a_tokenizer_without_the_special_tokens_that_are_needed_is_refused(tmp_path: Path) -> None:
    write_tasks(tmp_path)
    load(tmp_path, "own_choice", without("bos"))
    with pytest.raises(ModelError, match=r"own_choice: lm-eval needs a token that begins or ends a text"):
        load(tmp_path, "own_choice", without("bos", "eos"))
    with pytest.raises(ModelError, match=r"own_choice: lm-eval needs a token to pad prompts with"):
        load(tmp_path, "own_choice", without("eos"))
    with pytest.raises(ModelError, match=r"own_text: lm-eval needs an end-of-text token \(eos_token\)"):
        load(tmp_path, "own_text", without("eos"))
