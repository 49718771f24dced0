from __future__ import annotations

import pytest
import torch
from torch import nn

from quantbench.models.head import head_in_float32
from quantbench.models.slots import embedding_slot, head_slot
from quantbench.tasks import logits as logits_module
from quantbench.tasks.logits import SplitModel, log_probabilities
from tiny import FAMILIES, VOCABULARY, tiny_gemma2, tiny_handle, tiny_llama_tied


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_in_chunks_are_the_models_own(family: str) -> None:
    model = FAMILIES[family]()
    tokens = torch.randint(0, VOCABULARY, (1, 17), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = model(input_ids=tokens).logits[0]
        split = SplitModel(model)
        hidden = split.hidden(tokens)
        whole = split.logits(hidden)
        chunks = torch.cat([split.logits(hidden[start : start + 5]) for start in range(0, len(hidden), 5)])
    assert torch.equal(whole, expected)
    torch.testing.assert_close(chunks, expected, rtol=1e-5, atol=1e-6)


def test_the_model_is_whole_again_afterwards() -> None:
    model = tiny_gemma2()
    tokens = torch.arange(10)[None]
    with torch.no_grad():
        before = model(input_ids=tokens).logits
        split = SplitModel(model)
        split.logits(split.hidden(tokens))
        assert torch.equal(model(input_ids=tokens).logits, before)
    assert before.abs().max() <= 0.5, "the soft cap of the test model does not act"


def test_a_chunk_stays_within_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    split = SplitModel(tiny_gemma2())
    assert split.positions_per_chunk() * VOCABULARY * 4 <= logits_module.CHUNK_BYTES
    monkeypatch.setattr(logits_module, "CHUNK_BYTES", VOCABULARY * 4 - 1)
    assert split.positions_per_chunk() == 1


@pytest.mark.parametrize("family", FAMILIES)
def test_the_original_head_is_that_of_full_precision_whatever_was_done_to_the_head(family: str) -> None:
    handle = tiny_handle(FAMILIES[family]())
    tokens = torch.arange(2, 14)[None]
    with torch.no_grad():
        split = SplitModel(handle.model)
        hidden = split.hidden(tokens)
        expected = split.logits(hidden)
        assert handle.original_head() is head_slot(handle.model).module
        slot = head_slot(handle.model)
        slot.set(slot.get().round(decimals=1))
        handle.keep_hooks([slot.module.register_forward_pre_hook(lambda _module, args: (args[0] * 2,))])
        split = SplitModel(handle.model)
        split.hidden(tokens)
        assert not torch.allclose(split.logits(hidden), expected)
        assert torch.equal(split.logits(hidden, split.original_head(handle)), expected)
        assert head_slot(handle.model).module is slot.module
        assert not torch.allclose(split.logits(hidden), expected)
        handle.restore()
        assert torch.equal(split.logits(hidden), expected)


def test_quantizing_a_tied_head_leaves_the_embeddings() -> None:
    handle = tiny_handle(tiny_llama_tied())
    embeddings, head = embedding_slot(handle.model), head_slot(handle.model)
    before = embeddings.get().clone()
    head.set(torch.zeros(head.shape))
    assert torch.equal(embeddings.get(), before)
    assert not head_slot(handle.model).get().any()
    assert torch.equal(handle.original_head().get_parameter("weight"), before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", ["llama_tied", "gemma2", "phi", "gpt2"])
def test_the_head_of_a_16_bit_model_computes_in_float32(family: str, dtype: torch.dtype) -> None:
    model = FAMILIES[family]()
    nn.Module.to(model, dtype)
    tokens = torch.arange(2, 40)[None]
    with torch.no_grad():
        split = SplitModel(model)
        hidden = split.hidden(tokens)
        assert hidden.dtype == dtype
        assert model.lm_head.weight.dtype == dtype
        found = split.logits(hidden)
        rounded = model(input_ids=tokens).logits
        with head_in_float32(model):
            within = model(input_ids=tokens).logits
        assert rounded.dtype == dtype
        assert torch.equal(model(input_ids=tokens).logits, rounded), "the model is whole again"
        expected = hidden.double() @ model.lm_head.weight.double().T
        if model.lm_head.bias is not None:
            expected = expected + model.lm_head.bias.double()
    if family == "gemma2":
        expected = 0.5 * (expected / 0.5).tanh()
    for logits in (found, within[0]):
        assert logits.dtype == torch.float32
        torch.testing.assert_close(logits.double(), expected, rtol=1e-5, atol=1e-5)
    assert float((rounded[0].double() - expected).abs().max()) > 1e-4


def test_log_probabilities_are_those_of_float64_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = 4 * torch.randn(7, 50_000, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(logits_module, "BLOCK_BYTES", 2 * 8 * 50_000)
    parts = list(log_probabilities(logits))
    assert [part.shape[0] for _, part in parts] == [2, 2, 2, 1]
    for block, found in parts:
        wide = logits[block].double()
        expected = wide - wide.exp().sum(1, keepdim=True).log()
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
