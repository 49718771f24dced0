"""Models with quantized activations, caches and heads, as lm-eval is given them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval.models.huggingface import HFLM
from torch import nn

from lm_eval_tasks import long_handle, write_tasks
from quantbench.config.named import named_recipe
from quantbench.core.mixing import Mixing
from quantbench.models.handle import ModelHandle
from quantbench.models.head import head_in_float32
from quantbench.models.slots import embedding_slot, head_slot
from quantbench.pipeline.walker import quantize_model
from quantbench.tasks.lm_eval import model as model_module
from quantbench.tasks.lm_eval.task import LmEvalTask
from quantbench.tasks.task import Outcome

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("lm_eval") / "own")


def quantized(name: str, *overrides: str, **model: Any) -> ModelHandle:
    recipe = named_recipe(name, overrides)
    handle = long_handle(**model)
    tokens = torch.randint(2, 250, (2, 32), generator=torch.Generator().manual_seed(0))
    quantize_model(handle, recipe, tokens, CPU, lambda _done, _all: None).artifact.install(handle)
    return handle


def scored(handle: ModelHandle, folder: Path, name: str, batch_size: Any) -> Outcome:
    test = LmEvalTask(task=name, include_path=folder, batch_size=batch_size).load(handle.tokenizer, "tokenizer")
    return test.score(handle, "t", None, CPU, lambda _done, _all: None)


def log_likelihoods(handle: ModelHandle, prompt: str, answer: str) -> float:
    """Of an answer's bytes and the space before it, by one pass over the sequence alone, without its last token."""
    ids = handle.tokenizer(f"{prompt} {answer}", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        log_probs = handle.model(ids[:, :-1], use_cache=False).logits[0].log_softmax(-1)
    return sum(float(log_probs[i - 1, ids[0, i]]) for i in range(ids.shape[1] - 1 - len(answer), ids.shape[1]))


@pytest.mark.parametrize(
    "overrides",
    [
        ["llm_int8", "quantizer.activation.threshold=2.3"],
        ["kv4", "quantizer.kv_cache.residual=4"],
        ["w8a8"],
        ["w8a8", "quantizer.activation.dynamic=true", "quantizer.activation.granularity=tensor"],
        ["rtn"],
    ],
    ids=lambda overrides: overrides[-1],
)
def test_padding_changes_nothing(overrides: list[str], folder: Path) -> None:
    handle = quantized(*overrides)
    items = scored(handle, folder, "own_choice", batch_size=8).items
    test = LmEvalTask(task="own_choice", include_path=folder).load(handle.tokenizer, "tokenizer")
    for document, found in zip(test.documents, items["log_likelihoods"], strict=True):
        prompt, _, answer = document.rpartition("A: ")
        assert found[0] == pytest.approx(log_likelihoods(handle, f"{prompt}A:", answer), rel=1e-5)
    if handle.mixing > Mixing.EARLIER:  # and padding would have changed something
        handle.mixing = Mixing.NONE
        padded = scored(handle, folder, "own_choice", batch_size=8).items["log_likelihoods"]
        pairs = zip(padded.explode(), items["log_likelihoods"].explode(), strict=True)
        assert max(abs(one - other) for one, other in pairs) > 1e-3


def test_the_head_of_a_bfloat16_model_computes_in_float32(folder: Path) -> None:
    handle = long_handle()
    nn.Module.to(handle.model, torch.bfloat16)
    items = scored(handle, folder, "own_choice", batch_size=1).items
    assert handle.model.lm_head.weight.dtype == torch.bfloat16
    test = LmEvalTask(task="own_choice", include_path=folder).load(handle.tokenizer, "tokenizer")
    with head_in_float32(handle.model):
        for document, found in zip(test.documents, items["log_likelihoods"], strict=True):
            prompt, _, answer = document.rpartition("A: ")
            assert found[0] == pytest.approx(log_likelihoods(handle, f"{prompt}A:", answer), rel=1e-6)


def test_text_is_generated_without_a_cache_where_the_cache_is_quantized(folder: Path) -> None:
    handle = quantized("kv4", "quantizer.kv_cache.residual=4", "quantizer.kv_cache.bits=2")
    test = LmEvalTask(task="own_text", include_path=folder).load(handle.tokenizer, "tokenizer")
    outcome = test.score(handle, "t", None, CPU, lambda _done, _all: None)
    assert "generated without a cache" in outcome.attachments["notes.json"]
    for prompt, line in zip(test.documents, outcome.attachments["responses.jsonl"].splitlines(), strict=True):
        ids = handle.tokenizer(prompt, return_tensors="pt")["input_ids"]
        start = ids.shape[1]
        for _ in range(6):
            with torch.no_grad():
                ids = torch.cat([ids, handle.model(ids, use_cache=False).logits[:, -1:].argmax(-1)], dim=1)
        expected = str(handle.tokenizer.decode(ids[0, start:], skip_special_tokens=True)).partition("\n")[0]
        assert expected in json.loads(line)["responses"]


def test_answers_that_were_cut_are_counted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handle = long_handle()
    ids = handle.tokenizer("a\n", add_special_tokens=False)["input_ids"]

    def generate(_self: object, context: torch.Tensor, max_length: int, _stop: object, **_options: object) -> Any:
        new = torch.full((len(context), max_length - context.shape[1]), ids[0])
        new[context.sum(1) % 2 == 0, 1] = ids[1]
        return torch.cat([context, new], dim=1)

    monkeypatch.setattr(HFLM, "_model_generate", generate)
    outcome = scored(handle, folder, "own_text", batch_size=3)
    answers = [json.loads(line)["responses"][0] for line in outcome.attachments["responses.jsonl"].splitlines()]
    assert set(answers) == {"a", "aaaaaa"}
    assert outcome.items["unfinished"].tolist() == [int(len(answer) == 6) for answer in answers]
    cut = sum(len(answer) == 6 for answer in answers)
    assert f"{cut} of {len(answers)} answers were cut at 6 tokens" in outcome.attachments["notes.json"]


def test_a_head_that_quantization_set_apart_stays_apart(folder: Path) -> None:
    handle = quantized("rtn", tie_word_embeddings=True)
    head_slot(handle.model).set((embedding_slot(handle.model).get() * 4).round() / 4)
    assert not torch.equal(head_slot(handle.model).get(), embedding_slot(handle.model).get())
    before = {name: value.clone() for name, value in handle.model.state_dict().items()}
    first = scored(handle, folder, "own_choice", batch_size=1)
    assert all(torch.equal(value, before[name]) for name, value in handle.model.state_dict().items())
    assert "tie_weights" not in vars(handle.model)
    document = LmEvalTask(task="own_choice", include_path=folder).load(handle.tokenizer, "t").documents[0]
    prompt, _, answer = document.rpartition("A: ")
    assert first.items["log_likelihoods"][0][0] == pytest.approx(
        log_likelihoods(handle, f"{prompt}A:", answer), rel=1e-5
    )


def test_tokenizer_and_random_state_are_left_as_they_were(folder: Path) -> None:
    import random

    import numpy as np

    handle = long_handle()
    torch.manual_seed(3)
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # type: ignore[index]  # noqa: NPY002
    seen = list[tuple[int, int]]()
    test = LmEvalTask(task="own_choice", include_path=folder).load(handle.tokenizer, "tokenizer")
    test.score(handle, "t", None, CPU, lambda done, n: seen.append((done, n)))
    assert handle.tokenizer.pad_token is None
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == states  # type: ignore[index]  # noqa: NPY002
    assert seen == [(i + 1, test.prepared.n_prompts) for i in range(test.prepared.n_prompts)]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["own_choice", "own_text", "own_rolling"])
def test_the_batch_size_is_found_by_the_longest_prompt(
    folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle, shapes = long_handle(), list[tuple[int, int]]()
    monkeypatch.setattr(model_module, "CPU_BATCH", "auto")
    hook = handle.model.register_forward_pre_hook(
        lambda _module, args, kwargs: shapes.append((args[0] if args else kwargs["input_ids"]).shape), with_kwargs=True
    )
    found = scored(handle, folder, name, batch_size="auto").items
    hook.remove()
    assert max(rows for rows, _ in shapes) == 64  # the most that are tried at once
    assert max(length for _, length in shapes) < 200  # and not the 4096 that the model takes
    expected = scored(handle, folder, name, batch_size=1).items
    for column in set(found) & {"acc", "acc_norm", "exact_match", "nll"}:
        assert found[column].tolist() == pytest.approx(expected[column].tolist(), rel=1e-5)
