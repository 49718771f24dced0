from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM

from made_windows import some_windows
from quantbench.core.errors import ConfigError, ModelError, StoreError
from quantbench.core.mixing import Mixing
from quantbench.metrics import metrics
from quantbench.models.handle import ModelHandle
from quantbench.models.slots import WeightSlot, block_slots, embedding_slot, head_slot
from quantbench.models.structure import find_blocks
from quantbench.tasks import logits as logits_module
from quantbench.tasks.decoding import greedy
from quantbench.tasks.logits import SplitModel
from quantbench.tasks.loglikelihood import Continuation, loglikelihoods
from quantbench.tasks.reference import Reference
from quantbench.tasks.task import Outcome
from quantbench.tasks.text_windows import Windows
from tiny import FAMILIES, POSITIONS, VOCABULARY, settled, tiny_handle

CPU = torch.device("cpu")


def score(handle: ModelHandle, windows: Windows, reference: Reference | None = None) -> Outcome:
    return windows.score(handle, "t", reference, CPU, lambda _done, _total: None)


def damage(handle: ModelHandle, head: bool = True) -> None:
    """Round all weights of the blocks, the embeddings and perhaps the head coarsely, as quantization would."""
    name, blocks = find_blocks(handle.model)
    slots: list[WeightSlot] = [slot for block in blocks for slot in block_slots(name, block)]
    slots += [embedding_slot(handle.model), *([head_slot(handle.model)] if head else [])]
    for slot in slots:
        slot.set((slot.get() * 20).round() / 20)


def full_logits(handle: ModelHandle, windows: Windows) -> torch.Tensor:
    with torch.no_grad():
        return torch.stack([handle.model(input_ids=row[None]).logits[0, :-1] for row in windows.tokens])


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_equal_those_from_whole_logits(family: str, tmp_path: Path) -> None:
    handle, windows, path = tiny_handle(FAMILIES[family]()), some_windows(), tmp_path / "reference.safetensors"
    before = full_logits(handle, windows).double().log_softmax(-1)
    score(handle, windows, Reference.capture(path))
    damage(handle)
    after = full_logits(handle, windows).double().log_softmax(-1)
    items = score(handle, windows, Reference.load(path)).items
    targets = windows.tokens[:, 1:]
    nll = functional.nll_loss(after.transpose(1, 2), targets, reduction="none").mean(1)
    kl = functional.kl_div(after, before, reduction="none", log_target=True).sum(-1).mean(1)
    same = (after.argmax(-1) == before.argmax(-1)).double().mean(1)
    assert items["nll"].tolist() == pytest.approx(nll.tolist(), rel=1e-5)
    assert items["kl"].tolist() == pytest.approx(kl.tolist(), rel=1e-3, abs=1e-7)
    assert items["top1_agreement"].tolist() == pytest.approx(same.tolist())
    assert items["kl"].min() > 1e-5


def broad_handle(dtype: torch.dtype, vocabulary: int) -> ModelHandle:
    """A Llama of one block with a vocabulary of the size of real ones."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )
    model = settled(LlamaForCausalLM(config))
    nn.Module.to(model, dtype)
    return tiny_handle(model)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize(("vocabulary", "levels", "most"), [(49_152, 20, 2e-3), (49_152, 3, 1.0), (128_256, 20, 2e-3)])
def test_scores_of_a_large_vocabulary_are_those_of_float64(
    dtype: torch.dtype, vocabulary: int, levels: int, most: float, tmp_path: Path
) -> None:
    handle, path = broad_handle(dtype, vocabulary), tmp_path / "reference.safetensors"
    windows = some_windows(2, 40)

    def wide() -> torch.Tensor:
        with torch.no_grad():
            hidden = torch.stack([SplitModel(handle.model).hidden(row[None])[:-1] for row in windows.tokens])
        return (hidden.double() @ head_slot(handle.model).get().double().T).log_softmax(-1)

    before = wide()
    score(handle, windows, Reference.capture(path))
    name, blocks = find_blocks(handle.model)
    for slot in block_slots(name, blocks[0]):
        scale = slot.get().abs().amax() / levels
        slot.set((slot.get() / scale).round() * scale)
    after = wide()
    outcome = score(handle, windows, Reference.load(path))
    items, positions = outcome.items, outcome.positions
    assert positions is not None
    targets = windows.tokens[:, 1:, None]
    kl = (before.exp() * (before - after)).sum(-1)
    assert 1e-4 < float(kl.mean(1).max()) < most
    assert items["kl"].tolist() == pytest.approx(kl.mean(1).tolist(), rel=1e-5)
    nll = -after.gather(2, targets)[:, :, 0]
    assert items["nll"].tolist() == pytest.approx(nll.mean(1).tolist(), rel=1e-6)
    same = after.argmax(-1) == before.argmax(-1)
    assert items["top1_agreement"].tolist() == same.double().mean(1).tolist()
    reverse = (after.exp() * (after - before)).sum(-1)
    assert items["reverse_kl"].tolist() == pytest.approx(reverse.mean(1).tolist(), rel=1e-5)
    entropy = -(before.exp() * before).sum(-1)
    delta = after.gather(2, targets)[:, :, 0].exp() - before.gather(2, targets)[:, :, 0].exp()
    for name, expected in {"nll": nll, "kl": kl, "reverse_kl": reverse, "entropy": entropy, "delta_p": delta}.items():
        found = positions[name].to_numpy(np.float64)
        size = float(expected.abs().max())
        assert found == pytest.approx(expected.flatten().numpy(), rel=1e-5, abs=1e-5 * size), name
    assert positions["same_top1"].tolist() == same.flatten().tolist()
    values = {name: metrics.measure(name, items, outcome.estimates).value for name in windows.metrics}
    assert values["perplexity"] == pytest.approx(nll.mean().exp().item(), rel=1e-5)
    assert values["rms_dp"] == pytest.approx(delta.square().mean().sqrt().item(), rel=1e-5)
    surer = entropy < np.median(entropy)
    assert values["kl_confident"] == pytest.approx(kl[surer].mean().item(), rel=1e-5)
    assert values["kl_unsure"] == pytest.approx(kl[~surer].mean().item(), rel=1e-5)
    ordered = kl.flatten().sort().values
    for name, rank in {"kl_median": 39, "kl_p90": 71, "kl_p99": 78, "kl_p999": 78, "kl_max": 78}.items():
        assert values[name] == pytest.approx(ordered[rank - 1].item(), rel=1e-5), name


def test_log_likelihoods_and_answers_of_a_bfloat16_model_are_those_of_a_float32_head() -> None:
    model = broad_handle(torch.bfloat16, 49_152).model
    tokens = torch.randint(2, 49_152, (6, 20), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        hidden = SplitModel(model).hidden_batch(tokens)
        logits = hidden.double() @ head_slot(model).get().double().T
        wanted = [Continuation(tuple(row.tolist()), 12) for row in tokens]
        found = loglikelihoods(model, wanted, Mixing.NONE, CPU, lambda _done, _total: None)
        written = [
            greedy(model, tokens.tolist(), 1, lambda _ids: False, cached, Mixing.NONE, CPU, lambda _done, _total: None)
            for cached in (True, False)
        ]
    log_probs = logits[:, 11:-1].log_softmax(-1).gather(2, tokens[:, 12:, None])
    assert found == pytest.approx(log_probs.sum((1, 2)).tolist(), rel=1e-6)
    assert written == [logits[:, -1].argmax(-1)[:, None].tolist()] * 2


@pytest.mark.parametrize("family", FAMILIES)
def test_the_full_precision_model_has_no_divergence_from_itself(family: str, tmp_path: Path) -> None:
    handle, windows, path = tiny_handle(FAMILIES[family]()), some_windows(), tmp_path / "reference.safetensors"
    first = score(handle, windows, Reference.capture(path)).items
    damage(handle)
    handle.restore()
    again = score(handle, windows, Reference.load(path)).items
    for items in (first, again):
        for name in ("kl", "reverse_kl", "squared_dp", "kl_confident", "kl_unsure"):
            assert items[name].tolist() == [0.0] * 3, name
        assert items["top1_agreement"].tolist() == [1.0] * 3
    assert first["nll"].tolist() == again["nll"].tolist()


def test_chunks_change_nothing_but_the_last_digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handle, windows, path = tiny_handle(), some_windows(), tmp_path / "reference.safetensors"
    score(handle, windows, Reference.capture(path))
    damage(handle)
    whole = score(handle, windows, Reference.load(path)).items
    monkeypatch.setattr(logits_module, "CHUNK_BYTES", 5 * VOCABULARY * 4)
    chunked = score(handle, windows, Reference.load(path)).items
    assert chunked["nll"].tolist() == pytest.approx(whole["nll"].tolist(), rel=1e-6)
    assert chunked["kl"].tolist() == pytest.approx(whole["kl"].tolist(), rel=1e-4)


def test_result_without_a_reference() -> None:
    windows, calls = some_windows(), list[tuple[int, int]]()
    result = windows.score(tiny_handle(), "t", None, CPU, lambda done, total: calls.append((done, total)))
    assert list(result.items) == ["item", "document", "cluster", "n_tokens", "n_bytes", "nll"]
    assert result.items["n_tokens"].tolist() == [23] * 3
    assert result.positions is not None
    assert list(result.positions) == ["item", "position", "nll"]
    assert result.metrics == ("perplexity", "nll", "bits_per_byte")
    assert result.estimates == {}
    assert calls == [(1, 3), (2, 3), (3, 3)]


def test_an_overflow_names_task_and_window() -> None:
    handle = tiny_handle()
    embeddings = embedding_slot(handle.model)
    weight = embeddings.get().clone()
    weight[7] = float("inf")
    embeddings.set(weight)
    windows = some_windows()
    windows.tokens[windows.tokens == 7] = 8
    windows.tokens[1, 3] = 7
    with pytest.raises(ModelError, match=r"task t, window 1 \(at token 24\): nll is not finite.*use more bits"):
        score(handle, windows)


def test_a_failed_evaluation_writes_no_reference(tmp_path: Path) -> None:
    handle, path = tiny_handle(), tmp_path / "reference.safetensors"
    embeddings = embedding_slot(handle.model)
    embeddings.set(torch.full(embeddings.shape, float("nan")))
    with pytest.raises(ModelError, match="nll, kl, reverse_kl, squared_dp is not finite"):
        score(handle, some_windows(), Reference.capture(path))
    assert list(tmp_path.iterdir()) == []


def test_windows_longer_than_the_model_are_refused() -> None:
    with pytest.raises(
        ConfigError, match=f"windows of {POSITIONS + 1} tokens, but the model takes at most {POSITIONS}"
    ):
        score(tiny_handle(), some_windows(1, POSITIONS + 1))


def test_a_reference_of_another_protocol_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "reference.safetensors"
    score(tiny_handle(), some_windows(2), Reference.capture(path))
    for windows in (some_windows(3), some_windows(2, 25)):
        with pytest.raises(StoreError, match="it belongs to another model or protocol"):
            score(tiny_handle(), windows, Reference.load(path))


def test_a_missing_or_damaged_reference_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "reference.safetensors"
    with pytest.raises(StoreError, match=r"is missing. Delete it and evaluate the full-precision model again"):
        Reference.load(path)
    path.write_bytes(b"")
    with pytest.raises(StoreError, match="is damaged"):
        Reference.load(path)


def test_the_model_stays_where_it_was() -> None:
    handle = tiny_handle()
    before = [parameter.data_ptr() for parameter in handle.model.parameters()]
    score(handle, some_windows(1))
    assert [parameter.data_ptr() for parameter in handle.model.parameters()] == before
