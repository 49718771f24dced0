"""A model that memory does not hold is quantized and installed as any other, to the bit, but in files."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from mapped import in_file
from quantbench.core import tensors
from quantbench.core.memory import PROCESS, Memory
from quantbench.models.handle import ModelHandle
from quantbench.models.slots import block_slots
from quantbench.models.structure import find_blocks
from quantbench.pipeline.artifact import Artifact
from quantbench.pipeline.checkpoint import Checkpoint
from quantbench.pipeline.state import Quantized
from quantbench.pipeline.walker import quantize_model
from recipes import make_recipe
from tiny import FAMILIES, VOCABULARY, tiny_deepseek_v3, tiny_handle, tiny_llama

GROUPS = "quantizer.weight.group_size=16"
CASES = [
    *((family, ("gptq", GROUPS)) for family in [*FAMILIES, "deepseek_v3"]),
    ("llama", ("quarot",)),
    ("llama", ("awq", GROUPS)),
    ("llama", ("omniquant", GROUPS, "quantizer.rounding.steps=2")),
    ("llama", ("rtn", GROUPS, "quantizer.policy.lm_head=true", "quantizer.policy.embeddings=true")),
    ("mixtral", ("smoothquant",)),
    ("opt", ("gptq_awq", GROUPS, "quantizer.policy.keep=['.*fc1']")),
]


def data() -> Tensor:
    return torch.randint(0, VOCABULARY, (4, 24), generator=torch.Generator().manual_seed(1))


def quantize(handle: ModelHandle, *recipe: str, checkpoint: Checkpoint | None = None) -> Quantized:
    chosen = make_recipe(*recipe)
    tokens = None if chosen.data_free else data()
    return quantize_model(handle, chosen, tokens, torch.device("cpu"), lambda _done, _all: None, checkpoint)


def large(model: PreTrainedModel, folder: Path) -> ModelHandle:
    handle = tiny_handle(model)
    handle.memory = Memory(1000, folder)
    assert handle.large
    return handle


def block_weights(handle: ModelHandle) -> list[Tensor]:
    prefix, blocks = find_blocks(handle.model)
    return [slot.stored for block in blocks for slot in block_slots(prefix, block)]


@pytest.mark.parametrize(("family", "recipe"), CASES)
def test_it_is_the_same_model_in_files(family: str, recipe: tuple[str, ...], tmp_path: Path) -> None:
    make = FAMILIES.get(family, tiny_deepseek_v3)
    usual, spilled = tiny_handle(make()), large(make(), tmp_path / "spill")
    expected, found = quantize(usual, *recipe), quantize(spilled, *recipe)
    assert found.artifact.fingerprint() == expected.artifact.fingerprint()
    assert all(in_file(weight.codes, tmp_path) for weight in found.artifact.weights.values())
    expected.artifact.install(usual)
    stored, spec = found.artifact.to_tensors(spilled.weight_keeper())
    tensors.save(tmp_path / "weights.safetensors", stored)
    stored = tensors.load(tmp_path / "weights.safetensors")
    Artifact.from_tensors(stored, spec, spilled.weight_keeper()).install(spilled)
    for name, value in usual.model.state_dict().items():
        assert torch.equal(spilled.model.state_dict()[name], value), name
    prefix, _ = find_blocks(spilled.model)
    treated = [weight for weight in block_weights(spilled) if in_file(weight, tmp_path / "spill")]
    assert len(treated) >= sum(name.startswith(f"{prefix}.") for name in found.artifact.weights)
    assert list((tmp_path / "spill").iterdir()) == []


def test_a_block_that_is_done_is_of_full_precision_again() -> None:
    handle = tiny_handle(tiny_llama())
    before = {name: value.clone() for name, value in handle.model.state_dict().items()}
    quantize(handle, "gptq_awq", GROUPS)
    assert handle.model.state_dict().keys() == before.keys()
    for name, parameter in handle.model.named_parameters():
        assert torch.equal(parameter, before[name]), name
        assert parameter is handle.originals[name]


def test_it_goes_on_where_it_was_interrupted(tmp_path: Path) -> None:
    expected = quantize(tiny_handle(tiny_llama()), "gptq", GROUPS)

    class StopHereError(Exception):
        pass

    def stop_after_one(done: int, _all: int) -> None:
        if done == 1:
            raise StopHereError

    handle, recipe = large(tiny_llama(), tmp_path / "spill"), make_recipe("gptq", GROUPS)
    checkpoint = Checkpoint(tmp_path / "checkpoint", 1, {"model": "m"})
    with pytest.raises(StopHereError):
        quantize_model(handle, recipe, data(), torch.device("cpu"), stop_after_one, checkpoint)
    found = quantize(large(tiny_llama(), tmp_path / "spill"), "gptq", GROUPS, checkpoint=checkpoint)
    assert found.artifact.fingerprint() == expected.artifact.fingerprint()
    assert all(in_file(weight.codes, tmp_path / "spill") for weight in found.artifact.weights.values())


def test_activations_that_memory_does_not_hold_lie_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []
    handle = tiny_handle(tiny_llama())
    handle.memory = Memory(PROCESS + 4 * handle.bytes, tmp_path)
    assert not handle.large
    keeper = ModelHandle.activation_keeper

    def watched(own: ModelHandle, states: list[Tensor]) -> object:
        seen.append(all(in_file(one, tmp_path) for one in states))
        return keeper(own, states)

    monkeypatch.setattr(ModelHandle, "activation_keeper", watched)
    tokens = torch.randint(0, VOCABULARY, (64, 64), generator=torch.Generator().manual_seed(1))
    recipe = make_recipe("gptq", GROUPS)
    found = quantize_model(handle, recipe, tokens, torch.device("cpu"), lambda _done, _all: None)
    assert seen == [False, True]  # inputs of the first block, of the second
    again = quantize_model(tiny_handle(tiny_llama()), recipe, tokens, torch.device("cpu"), lambda _done, _all: None)
    assert found.artifact.fingerprint() == again.artifact.fingerprint()


@pytest.mark.parametrize("recipe", ["gptq", "gptq_awq", "omniquant", "smoothquant", "rtn"])
def test_nothing_of_a_block_outlives_it(recipe: str) -> None:
    handle, chosen = tiny_handle(tiny_llama()), make_recipe(recipe)
    quantize_model(handle, chosen, None if chosen.data_free else data(), torch.device("cpu"), lambda _d, _a: None)
    gc.collect()
    gc.disable()  # what is freed is freed at once, and not when objects that know each other are looked for
    try:
        quantize_model(handle, chosen, None if chosen.data_free else data(), torch.device("cpu"), lambda _d, _a: None)
        before = sum(type(one) is Tensor for one in gc.get_objects())
        gc.collect()
        assert sum(type(one) is Tensor for one in gc.get_objects()) == before
    finally:
        gc.enable()
