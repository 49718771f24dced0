"""Label tasks: right log-likelihoods whatever the batch, tokenizer and length; shots that are never test items."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from prompts import PAIR, SENTIMENT, label_task, labelled, long_llama, reviews, write_rows
from quantbench.core.errors import ConfigError, DataError
from quantbench.core.mixing import Mixing
from quantbench.metrics.metrics import check_items, measure
from quantbench.models.handle import ModelHandle
from quantbench.tasks import task as kinds
from quantbench.tasks.batches import batches
from quantbench.tasks.label_items import LabelTest
from quantbench.tasks.loglikelihood import Continuation, loglikelihoods
from quantbench.tasks.task import protocol_id
from tiny import BYTES, FAMILIES, tiny_handle, tiny_tokenizer

CPU = torch.device("cpu")
TOKENIZER = tiny_tokenizer()


def scored(test: LabelTest, model: PreTrainedModel | None = None) -> pd.DataFrame:
    handle = ModelHandle(long_llama() if model is None else model, TOKENIZER, "tiny")
    return test.score(handle, "mine", None, CPU, lambda _done, _all: None).items


def direct(model: PreTrainedModel, one: Continuation) -> float:
    """log p of the scored tokens, from one plain forward."""
    log_probs = model(input_ids=torch.tensor([one.tokens])).logits[0].log_softmax(1)
    return float(sum(log_probs[i - 1, one.tokens[i]] for i in range(one.start, len(one.tokens))))


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "opt", "mixtral"])
def test_log_likelihoods_are_those_of_plain_forwards(family: str) -> None:
    model = FAMILIES[family]()
    generator = torch.Generator().manual_seed(0)
    wanted = []
    for length in (3, 9, 9, 14, 9):
        prompt = tuple(torch.randint(2, 250, (length,), generator=generator).tolist())
        wanted += [Continuation((*prompt, *tail), length) for tail in ((5,), (7, 8), (7, 9, 3))]
    with torch.no_grad():
        found = loglikelihoods(model, wanted, Mixing.NONE, CPU, lambda _done, _all: None)
        expected = [direct(model, one) for one in wanted]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_labels_of_one_token_cost_one_forward_an_item() -> None:
    model, shown = long_llama(), []
    wanted = [Continuation((4, 5, 6, label), 3) for label in (7, 8, 9)] + [Continuation((4, 5, 9), 2)]
    with torch.no_grad():
        loglikelihoods(model, wanted, Mixing.NONE, CPU, lambda done, total: shown.append((done, total)))
    assert shown == [(1, 1)]  # (4, 5) is a prefix of (4, 5, 6)


def test_batches_hold_sequences_of_one_length_within_the_budget() -> None:
    found = batches([5, 3, 5, 5, 9], Mixing.EARLIER, budget=10)
    assert found == [[1], [0, 2], [3], [4]]


def test_an_item_scores_the_same_alone_and_among_others(tmp_path: Path) -> None:
    data = labelled(write_rows(tmp_path, test=reviews(20)))
    task = label_task(data)
    assert isinstance(task, kinds.Task)
    test = task.load(TOKENIZER, "tok")
    assert isinstance(test, kinds.TestSet)
    items = scored(test)
    check_items(items, 20, "items")
    few = scored(label_task(data, n=4).load(TOKENIZER, "tok"))
    assert few["item"].tolist() == ["0", "5", "10", "15"]
    both = items.set_index("item").loc[few["item"]].reset_index()
    pd.testing.assert_frame_equal(both, few, rtol=1e-5)
    assert (items["accuracy"] == (items["predicted"] == items["gold"])).all()
    assert set(items["n_labels"]) == {len(test.prompts.labels)}
    assert items["cluster"].tolist() == [example.document for example in test.prompts.examples]
    assert measure("accuracy", items).value == items["accuracy"].mean()
    right = items.apply(lambda row: row[f"ll_{int(row['gold'])}"] - row[f"ll_{1 - int(row['gold'])}"], axis=1)
    np.testing.assert_allclose(items["margin"], right)


def test_normalized_and_calibrated_decisions(tmp_path: Path) -> None:
    data = labelled(write_rows(tmp_path, test=reviews(6)), labels=("no", "good"))
    plain = scored(label_task(data).load(TOKENIZER, "tok"))
    by_bytes = scored(label_task(data, normalize="bytes").load(TOKENIZER, "tok"))
    by_tokens = scored(label_task(data, normalize="tokens").load(TOKENIZER, "tok"))
    pd.testing.assert_series_equal(plain["ll_1"], by_bytes["ll_1"])
    expected = (plain["ll_1"] / 5 > plain["ll_0"] / 3).astype(float)  # " good" and " no" in bytes, here tokens, too
    assert by_bytes["predicted"].tolist() == by_tokens["predicted"].tolist() == expected.tolist()
    free = labelled(write_rows(tmp_path / "free", test=[{"text": "N/A", "label": 0}, {"text": "x", "label": 1}]))
    prior = scored(label_task(free).load(TOKENIZER, "tok"))
    calibrated = scored(label_task(free, contextual_calibration=True).load(TOKENIZER, "tok"))
    assert calibrated["margin"][0] == pytest.approx(0, abs=1e-6)
    shift = (prior["ll_1"][1] - prior["ll_0"][1]) - (prior["ll_1"][0] - prior["ll_0"][0])
    assert calibrated["margin"][1] == pytest.approx(shift, abs=1e-5)


def test_a_label_that_no_row_has_is_refused(tmp_path: Path) -> None:
    rows = write_rows(tmp_path, test=reviews(4))  # of the values 0 and 1
    label_task(labelled(rows, labels=("bad", "good"))).load(TOKENIZER, "tok")
    with pytest.raises(DataError, match="no row has the label 'fine'"):
        label_task(labelled(rows, labels=("bad", "good", "fine"))).load(TOKENIZER, "tok")


def test_labels_that_begin_with_one_another_are_refused(tmp_path: Path) -> None:
    data = labelled(write_rows(tmp_path, test=reviews(4)), labels=("toxic", "toxic speech"))
    with pytest.raises(ConfigError, match=r"'toxic' and 'toxic speech' cannot be told apart"):
        label_task(data).load(TOKENIZER, "tok")


def merging_tokenizer() -> PreTrainedTokenizerFast:
    """Bytes, and one token for ": " that no prompt ends with: prompt and label share it."""
    vocabulary = {token: index for index, token in enumerate(["<s>", *BYTES, ":\u0120"])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[(":", "\u0120")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<s>")  # type: ignore[no-untyped-call]


def test_a_token_of_prompt_and_label_together_is_scored(tmp_path: Path) -> None:
    tokenizer = merging_tokenizer()
    test = label_task(labelled(write_rows(tmp_path, test=reviews(2)))).load(tokenizer, "tok")
    (prompt, _) = test.prompts.fitted(None, [" bad"])
    ones = test.requests(prompt)
    merged = len(tokenizer) - 1
    assert [one.tokens[one.start] for one in ones] == [merged, merged]
    assert all(str(tokenizer.decode(list(one.tokens[: one.start]))) + ":" == prompt.text for one in ones)


def test_the_middle_of_the_passage_is_cut_and_never_the_question(tmp_path: Path) -> None:
    rows = [
        {"p": "start " + "middle " * 100 + "end", "h": "is it a question?", "label": 0},
        {"p": "short", "h": "another", "label": 1},
    ]
    data = labelled(write_rows(tmp_path, test=rows), premise="p", hypothesis="h")
    test = label_task(data, PAIR).load(TOKENIZER, "tok")
    first, second = test.prompts.fitted(128, [" bad", " good"])
    assert first.truncated
    assert not second.truncated
    assert len(test.prompts.encode(first.text + " good")) in {127, 128}
    assert first.text.startswith("start middle")
    assert "end\nQ: is it a question?\nA:" in first.text
    items = test.score(tiny_handle(), "mine", None, CPU, lambda _done, _all: None).items  # 128 positions
    assert items["truncated"].tolist() == [1, 0]
    shorter = label_task(data, PAIR, max_tokens=64).load(TOKENIZER, "tok")
    assert scored(shorter)["n_tokens"].max() <= 64
    with pytest.raises(ConfigError, match="task mine: item 0: its prompt with 0 shots is longer than 16 tokens, even"):
        test.check_length(16, "mine")
    test.check_length(64, "mine")


def test_shots_come_from_the_train_split_and_are_no_test_items(tmp_path: Path) -> None:
    train, test = reviews(6, start=100), reviews(4)
    leaked = {"text": test[0]["text"].upper(), "label": 1}
    data = labelled(write_rows(tmp_path, train=[*train, leaked], test=test))
    texts = []
    for seed in (0, 0, 1):
        made = label_task(data, shots=6, shot_seed=seed).load(TOKENIZER, "tok")
        texts.append(made.prompts.fitted(None, [" good"])[0].text)
    assert texts[0] == texts[1] != texts[2]
    assert all(str(row["text"]) in texts[0] for row in train)
    assert str(leaked["text"]) not in texts[0]
    assert texts[0].startswith("bad or good?\n\nText: review 10")
    with pytest.raises(DataError, match="7 shots were asked for, but its train split has 6 examples"):
        label_task(data, shots=7).load(TOKENIZER, "tok")
    with pytest.raises(ConfigError, match="shots are drawn from the train split"):
        label_task(data, shots=1, split="train").load(TOKENIZER, "tok")


def test_whatever_changes_a_score_is_another_protocol(tmp_path: Path) -> None:
    data = labelled(write_rows(tmp_path, train=reviews(4, start=50), test=reviews(8)))
    other = labelled(write_rows(tmp_path / "b", test=[*reviews(7), {"text": "new", "label": 1}]))
    variants: list[Callable[[], Any]] = [
        lambda: label_task(data),
        lambda: label_task(data, n=4),
        lambda: label_task(data, shots=1),
        lambda: label_task(data, shots=1, shot_seed=3),
        lambda: label_task(data, normalize="bytes"),
        lambda: label_task(data, contextual_calibration=True),
        lambda: label_task(data, max_tokens=99),
        lambda: label_task(data, SENTIMENT.__class__(**{**vars_of(SENTIMENT), "answer": "{answer}"})),
        lambda: label_task(labelled(tmp_path, labels=("poor", "good"))),
        lambda: label_task(other),
    ]
    ids = [protocol_id(make().load(TOKENIZER, "tok")) for make in variants]
    assert len(set(ids)) == len(ids)
    assert protocol_id(variants[0]().load(TOKENIZER, "tok")) == ids[0]
    assert protocol_id(variants[0]().load(TOKENIZER, "another tokenizer")) != ids[0]


def vars_of(template: Any) -> dict[str, Any]:
    return {name: getattr(template, name) for name in ("instruction", "item", "answer", "passage", "between")}
