"""Answers that the model writes: greedy decoding with and without a cache, and how they are scored."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest
import torch

from prompts import QUESTION, answered, long_llama, own, write_rows
from quantbench.core.errors import ConfigError, DataError, ModelError
from quantbench.core.mixing import Mixing
from quantbench.datasets.examples import Example
from quantbench.datasets.files import FileSource
from quantbench.datasets.spans import SpanSet, answer_of, span_counts, spans_in, spans_of
from quantbench.datasets.template import Template
from quantbench.formats.kv import KVCache
from quantbench.metrics.metrics import measure
from quantbench.models.handle import ModelHandle
from quantbench.models.structure import find_blocks
from quantbench.pipeline.attention import cache_operations
from quantbench.pipeline.runtime import install
from quantbench.tasks import generative_items
from quantbench.tasks import task as kinds
from quantbench.tasks.decoding import greedy
from quantbench.tasks.extractive import ExtractiveTask, f1, matches, normalized
from quantbench.tasks.token_classification import TokenClassificationTask
from tiny import FAMILIES, tiny_tokenizer

CPU = torch.device("cpu")
PROMPTS = [[3, 9, 27], [8, 9, 10], [200, 100, 50, 25, 12], [4, 4, 4]]


def generate(model: Any, prompts: list[list[int]], cached: bool, stop: int | None = None) -> list[list[int]]:
    with torch.no_grad():
        return greedy(
            model, prompts, 6, lambda ids: ids[-1] == stop, cached, Mixing.NONE, CPU, lambda _done, _all: None
        )


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "gpt_neox"])
def test_cached_and_repeated_reading_write_the_same_alone_and_together(family: str) -> None:
    model = FAMILIES[family]()
    expected = [generate(model, [prompt], cached=False)[0] for prompt in PROMPTS]
    assert generate(model, PROMPTS, cached=False) == expected
    assert generate(model, PROMPTS, cached=True) == expected
    assert all(len(tokens) == 6 for tokens in expected)
    stop = expected[0][2]
    stopped = generate(model, PROMPTS, cached=True, stop=stop)
    assert stopped[0] == expected[0][: expected[0].index(stop) + 1]


def test_a_quantized_key_value_cache_is_read_as_whole_sequences(tmp_path: Path) -> None:
    rows = [{"context": f"words {i} about it", "question": "which?", "answers": ["it"]} for i in range(4)]
    test = task(answered(write_rows(tmp_path, test=rows))).load(tiny_tokenizer(), "tok")
    model = long_llama()
    handle = ModelHandle(model, tiny_tokenizer(), "tiny")
    assert not handle.has_runtime_operations
    cache = KVCache(keys="token", bits=2, group_size="head", residual=0)
    prefix, blocks = find_blocks(model)
    operations = [one for block in cache_operations(cache, model, prefix, blocks) for one in block]
    handle.keep_hooks(install(dict(model.named_modules()), operations))
    assert handle.has_runtime_operations
    outcome = test.score(handle, "mine", None, CPU, lambda _done, _all: None)
    answers = list(csv.DictReader(io.StringIO(outcome.attachments["answers.csv"], newline="")))
    for prompt, row in zip(test.prompts.fitted(None, [""]), answers, strict=True):
        tokens = test.prompts.encode(prompt.text)
        new: list[int] = []
        with torch.no_grad():
            while len(new) < 8 and not (new and test.ended(new)):
                logits = model(input_ids=torch.tensor([tokens + new]), use_cache=False).logits
                new.append(int(logits[0, -1].argmax()))
        assert row == {"item": prompt.example.id, "generated": test.answer(new)}
    with pytest.raises(ModelError, match="whole sequences are wanted"):  # a cache would be read as it is not stored
        generate(model, PROMPTS, cached=True)


def task(data: Any, **options: Any) -> ExtractiveTask:
    usual: dict[str, Any] = {"split": "test", "n": None, "shots": 0, "shot_seed": 0, "max_tokens": None}
    return ExtractiveTask(data=data, template=QUESTION, max_new_tokens=8, **(usual | options))


def test_answers_are_compared_as_squad_does() -> None:
    assert normalized("The  Cat, sat (on) a mat!") == "cat sat on mat"
    assert f1("the red house", "a Red House.") == 1
    assert f1("red car", "red house") == 0.5
    assert f1("", "x") == 0
    example = Example("1", {"passage": "p"}, "Denver Broncos", ("Denver Broncos", "Broncos"))
    assert matches("broncos", example) == {"exact_match": 1, "f1": 1}
    assert matches("the denver team", example) == {"exact_match": 0, "f1": 0.5}


def test_a_question_task_scores_every_item_and_keeps_what_was_generated(tmp_path: Path) -> None:
    rows = [
        {"context": f"passage {i}" + " long" * 9 * i, "question": "what?", "answers": {"text": ["x"]}} for i in range(9)
    ]
    made = task(answered(write_rows(tmp_path, test=rows)), max_tokens=64)
    assert isinstance(made, kinds.Task)
    test = made.load(tiny_tokenizer(), "tok")
    assert isinstance(test, kinds.TestSet)
    outcome = test.score(ModelHandle(long_llama(), tiny_tokenizer(), "t"), "mine", None, CPU, lambda _d, _a: None)
    assert len(outcome.items) == len(outcome.attachments["answers.csv"].splitlines()) - 1 == 9
    assert outcome.items["truncated"].tolist() == [0, *[1] * 8]
    assert (outcome.items["n_tokens"] <= 64 - 8).all()
    assert {"exact_match", "f1", "new_tokens"} <= set(outcome.items)


def test_prompts_go_through_the_chat_template_if_they_are_to(tmp_path: Path) -> None:
    rows = [{"context": f"passage {i} " + "long " * 40 * i, "question": "what?", "answers": ["x"]} for i in range(2)]
    data, tokenizer = answered(write_rows(tmp_path, test=rows)), tiny_tokenizer()
    plain = task(data).load(tokenizer, "tok")
    with pytest.raises(ConfigError, match="chat=true: the model's tokenizer has no chat template"):
        task(data, chat=True).load(tokenizer, "tok")
    tokenizer.chat_template = (
        "<s>{% for m in messages %}[{{ m.role }}|{{ m.content }}]{% endfor %}"
        "{% if add_generation_prompt %}[me|{% endif %}"
    )
    test = task(data, chat=True, max_tokens=100).load(tokenizer, "tok")
    first, second = test.fitted(None)
    assert first.text == f"<s>[user|{plain.fitted(None)[0].text}][me|"
    assert (first.truncated, second.truncated) == (False, True)
    assert second.text.endswith("\nQ: what?\nA:][me|")
    assert test.prompts.encode(first.text).count(tokenizer.bos_token_id) == 1
    assert len(test.prompts.encode(second.text)) <= 100 - 8
    other = {"chat_template", "bos", "max_tokens"}
    assert {key for key, value in test.protocol_values.items() if plain.protocol_values.get(key) != value} == other
    test.score(ModelHandle(long_llama(), tokenizer, "t"), "mine", None, CPU, lambda _d, _a: None)


def test_answers_that_were_cut_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"context": f"passage {i}", "question": "what?", "answers": {"text": ["x"]}} for i in range(4)]
    tokenizer = tiny_tokenizer(add_bos=False)
    test = task(answered(write_rows(tmp_path, test=rows))).load(tokenizer, "tok")
    written = [tokenizer(text)["input_ids"] for text in ("abcdefgh", "abcdefg\n", "a\n")]
    written.append([*tokenizer("abcdefg")["input_ids"], tokenizer.eos_token_id])
    monkeypatch.setattr(generative_items, "greedy", lambda *_args: written)
    items = test.score(ModelHandle(long_llama(), tokenizer, "t"), "mine", None, CPU, lambda _d, _a: None).items
    assert items["new_tokens"].tolist() == [8, 8, 2, 8]
    assert items["unfinished"].tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"text": ["a", " a ", "b"], "answer_start": ["a", "b"]}, ("a", "b")),
        (["a"], ("a",)),
        ("a", ("a",)),
    ],
)
def test_answers_in_every_form(tmp_path: Path, value: Any, expected: tuple[str, ...]) -> None:
    rows = [{"context": "c", "question": "q", "answers": value}, {"context": "c", "question": "r", "answers": []}]
    found = answered(write_rows(tmp_path, test=rows)).load("test")
    assert [example.answers for example in found.examples] == [expected]
    assert "1 rows without a text or an answer skipped" in found.notes
    write_rows(tmp_path, test=[{"context": "c", "question": "q", "answers": 7}])
    with pytest.raises(DataError, match=r"expected .*text.* found 7"):
        answered(tmp_path).load("test")


TAGS = {"O": "O", "B-PER": "B-person", "I-PER": "I-person", "LOC": "location"}


def test_spans_are_read_from_tags_and_from_what_was_written() -> None:
    tokens = ["Ann", "Lee", "met", "Bo", "in", "New", "York"]
    tags = ["B-person", "I-person", "O", "B-person", "O", "location", "location"]
    spans = spans_of(tokens, tags)
    assert spans == [("person", "Ann Lee"), ("person", "Bo"), ("location", "New York")]
    assert spans_of(["A", "B"], ["B-person", "B-person"]) == [("person", "A"), ("person", "B")]
    assert spans_of(["A", "B"], ["I-person", "location"]) == [("person", "A"), ("location", "B")]
    text = answer_of(spans)
    assert text == "person: Ann Lee; person: Bo; location: New York"
    assert span_counts("Person:  ann lee; location: York; junk; : x", text) == {"tp": 1, "n_predicted": 2, "n_gold": 3}
    assert span_counts("none", answer_of([])) == {"tp": 0, "n_predicted": 0, "n_gold": 0}
    assert spans_in("person: A; person: A").total() == 2


def test_span_f1_is_a_ratio_over_all_items(tmp_path: Path) -> None:
    rows = [{"t": ["Ann", "ran"], "g": ["B-PER", "O"]}, {"t": ["it", "ran"], "g": ["O", "O"]}]
    source, origin = FileSource(path=write_rows(tmp_path, train=rows, test=rows)), own("ner", tmp_path)
    data = SpanSet(source=source, origin=origin, tokens="t", label="g", tags=TAGS)
    template = Template(instruction="{labels}", item="{text} =", answer=" {answer}", passage="text")
    options: dict[str, Any] = {"split": "test", "n": None, "shots": 0, "shot_seed": 0, "max_tokens": None}
    test = TokenClassificationTask(data=data, template=template, max_new_tokens=6, **options).load(
        tiny_tokenizer(), "tok"
    )
    items = test.score(ModelHandle(long_llama(), tiny_tokenizer(), "t"), "m", None, CPU, lambda _d, _a: None).items
    assert items["n_gold"].tolist() == [1, 0]
    items = items.assign(tp=[1.0, 0.0], n_predicted=[2.0, 1.0])
    metric = measure("span_f1", items)
    assert metric.value == 2 * 1 / (3 + 1)
    assert metric.stderr is not None
    bad = SpanSet(source=source, origin=origin, tokens="t", label="g", tags={"O": "O"})
    with pytest.raises(DataError, match="unknown tag 'B-PER'; `tags` names O"):
        bad.load("test")
