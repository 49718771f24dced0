"""What a CUDA device computes is what the CPU computes, and nothing of it stays there."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from lm_eval_tasks import long_handle, write_tasks
from quantbench.core import tensors
from quantbench.core.build import build
from quantbench.core.errors import QuantbenchError
from quantbench.core.mixing import Mixing
from quantbench.models.handle import ModelHandle
from quantbench.pipeline.artifact import Artifact
from quantbench.pipeline.checkpoint import Checkpoint
from quantbench.pipeline.recipe import Recipe
from quantbench.pipeline.state import Quantized
from quantbench.pipeline.walker import quantize_model
from quantbench.tasks.decoding import greedy
from quantbench.tasks.evaluate import evaluate
from quantbench.tasks.lm_eval.task import LmEvalTask
from quantbench.tasks.loglikelihood import Continuation, loglikelihoods
from quantbench.tasks.reference import Reference
from recipes import NAMES, make_recipe, refused, small_spec
from tiny import FAMILIES, VOCABULARY, tiny_handle

if not torch.cuda.is_available():
    pytest.skip("torch sees no CUDA device", allow_module_level=True)

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
MODELS = ("llama", "gpt2", "gemma2", "mixtral")
RECIPES = [name for name in NAMES if name != "none"]
SEARCHING = {"os_plus"}
"""Recipes that choose among candidates of which several are as good on a random model: on the CPU as well, weights
changed by a ten-millionth give a model as far away."""


def tokens(n: int = 4, length: int = 24, seed: int = 1) -> Tensor:
    return torch.randint(2, VOCABULARY, (n, length), generator=torch.Generator().manual_seed(seed))


def silent(_done: int, _total: int) -> None:
    """No progress bar."""


def quantize(handle: ModelHandle, recipe: Recipe, device: torch.device, store: Checkpoint | None = None) -> Quantized:
    return quantize_model(handle, recipe, None if recipe.data_free else tokens(), device, silent, store)


@cache
def quantized(name: str, family: str, device: torch.device) -> Quantized:
    """The recipe on the model; computed once for all tests."""
    return quantize(tiny_handle(FAMILIES[family]()), build(small_spec(name), Recipe, "quantizer"), device)


@torch.no_grad()
def logits(handle: ModelHandle, device: torch.device = CPU) -> Tensor:
    with handle.on_device(device) as model:
        found: Tensor = model(input_ids=tokens(2, seed=3).to(device)).logits.cpu()
    return found


REFUSED = {pair: reason for pair, reason in refused().items() if pair[1] in MODELS}
each = pytest.mark.parametrize(
    ("name", "family"), [(name, family) for name in RECIPES for family in MODELS if (name, family) not in REFUSED]
)


@pytest.mark.parametrize("family", sorted({family for _, family in REFUSED}))
def test_what_is_refused_on_the_cpu_is_refused_here(family: str) -> None:
    for name in (name for name, refusing in REFUSED if refusing == family):
        with pytest.raises(QuantbenchError, match=REFUSED[name, family]):
            quantized(name, family, CUDA)


@each
def test_a_recipe_gives_the_model_it_gives_on_the_cpu(name: str, family: str) -> None:
    here, there = quantized(name, family, CPU), quantized(name, family, CUDA)
    handle = tiny_handle(FAMILIES[family]())
    full = logits(handle)
    here.artifact.install(handle)
    expected = logits(handle)
    there.artifact.install(handle)
    # Rounding is a step: what two devices add up in another order may, rarely, fall on the other side of one.
    limit = 0.7 if name in SEARCHING else 0.15
    assert (logits(handle) - expected).norm() < limit * (expected - full).norm()
    assert [layer.name for layer in here.layers] == [layer.name for layer in there.layers]
    assert here.artifact.effective_bits == there.artifact.effective_bits
    assert here.artifact.kv_bits == there.artifact.kv_bits


@each
def test_it_is_stored_on_the_cpu_and_reloads_bit_for_bit(name: str, family: str, tmp_path: Path) -> None:
    found = quantized(name, family, CUDA)
    handle = tiny_handle(FAMILIES[family]())
    before = handle.model.state_dict()
    found.artifact.install(handle)
    assert {parameter.device.type for parameter in handle.model.parameters()} == {"cpu"}
    fresh = logits(handle, CUDA)
    assert {parameter.device.type for parameter in handle.model.parameters()} == {"cpu"}
    stored, spec = found.artifact.to_tensors()
    tensors.save(tmp_path / "weights.safetensors", stored)
    Artifact.from_tensors(tensors.load(tmp_path / "weights.safetensors"), spec).install(handle)
    assert torch.equal(logits(handle, CUDA), fresh)
    handle.restore()
    assert all(torch.equal(value, before[key]) for key, value in handle.model.state_dict().items())


@pytest.mark.parametrize("name", RECIPES)
def test_it_is_deterministic(name: str) -> None:
    first, second = (
        quantize(tiny_handle(), build(small_spec(name), Recipe, "quantizer"), CUDA).artifact.fingerprint()
        for _ in range(2)
    )
    assert first == second


@pytest.fixture
def memory() -> Iterator[None]:
    """Afterwards the device holds what it held before."""
    gc.collect()
    before = torch.cuda.memory_allocated()
    yield
    gc.collect()
    assert torch.cuda.memory_allocated() == before


def wide_llama(blocks: int) -> ModelHandle:
    """Blocks of 2.4 MB; always the same weights."""
    torch.manual_seed(0)
    shape: dict[str, Any] = {"hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, num_hidden_layers=blocks, **shape))
    return tiny_handle(model.requires_grad_(False).train(False))


@pytest.mark.parametrize("name", ["rtn", "gptq", "awq", "smoothquant", "spqr", "omniquant", "quarot", "gptq_mixed"])
@pytest.mark.usefixtures("memory")
def test_one_block_at_a_time_is_on_the_device(name: str) -> None:
    peaks = []
    for blocks in (4, 12):
        handle, recipe = wide_llama(blocks), build(small_spec(name), Recipe, "quantizer")
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        quantize(handle, recipe, CUDA).artifact.install(handle)
        peaks.append(torch.cuda.max_memory_allocated() - before)
    block = 4 * sum(p.numel() for p in handle.model.model.layers[0].parameters())
    assert peaks[1] - peaks[0] < block, [peak / block for peak in peaks]


@pytest.mark.usefixtures("memory")
def test_evaluation_scores_as_on_the_cpu(tmp_path: Path) -> None:
    handle, found = tiny_handle(), quantized("gptq", "llama", CPU)
    windows, names = tokens(3, 40), [f"window {i}" for i in range(3)]
    items = []
    for device in (CPU, CUDA):
        handle.restore()
        path = tmp_path / f"{device}.safetensors"
        full = evaluate(handle, windows, names, Reference.capture(path), device, silent).items
        assert full["kl"].tolist() == [0.0] * 3
        found.artifact.install(handle)
        items.append(evaluate(handle, windows, names, Reference.load(path), device, silent).items)
    for column in ("nll", "kl", "reverse_kl"):
        np.testing.assert_allclose(items[0][column], items[1][column], rtol=1e-3)


@pytest.mark.usefixtures("memory")
@torch.no_grad()
def test_continuations_score_and_grow_as_on_the_cpu() -> None:
    handle = tiny_handle()
    wanted = [
        Continuation((*tokens(1, length, seed)[0].tolist(), *tail), length)
        for seed, length in enumerate((3, 9, 9, 14))
        for tail in ((5,), (7, 8), (7, 9, 3))
    ]
    prompts = [one.tokens for one in wanted]
    scores, texts = [], []
    for device in (CPU, CUDA):
        with handle.on_device(device) as model:
            scores.append(loglikelihoods(model, wanted, Mixing.NONE, device, silent))
            texts.append(
                [
                    greedy(model, prompts, 6, lambda _row: False, cached, Mixing.NONE, device, silent)
                    for cached in (True, False)
                ]
            )
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-4, atol=1e-4)
    assert texts[1][0] == texts[1][1] == texts[0][0]


@pytest.mark.usefixtures("memory")
def test_lm_eval_scores_as_on_the_cpu(tmp_path: Path) -> None:
    folder, handle = write_tasks(tmp_path / "own"), long_handle()
    for name in ("own_choice", "own_text", "own_rolling"):
        test = LmEvalTask(task=name, include_path=folder, batch_size="auto").load(handle.tokenizer, "tokenizer")
        here, there = (test.score(handle, "task", None, device, silent).items for device in (CPU, CUDA))
        assert here["item"].tolist() == there["item"].tolist()
        for column in here.select_dtypes("number"):
            np.testing.assert_allclose(here[column], there[column], rtol=1e-3, atol=1e-3, err_msg=f"{name} {column}")


def test_a_checkpoint_is_taken_up_on_the_device(tmp_path: Path) -> None:
    recipe = make_recipe("gptq", "quantizer.weight.group_size=16")
    whole = quantize(wide_llama(4), recipe, CUDA).artifact.fingerprint()
    store = Checkpoint(tmp_path, 1, {})

    def stop(done: int, _total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quantize_model(wide_llama(4), recipe, tokens(), CUDA, stop, store)
    assert quantize(wide_llama(4), recipe, CUDA, store).artifact.fingerprint() == whole
